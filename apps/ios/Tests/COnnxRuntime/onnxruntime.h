// Debian and Homebrew have the header in different folders. The library is opened when the tests run.
#if __has_include(<onnxruntime/onnxruntime_c_api.h>)
#include <onnxruntime/onnxruntime_c_api.h>
#else
#include <onnxruntime/core/session/onnxruntime_c_api.h>
#endif
