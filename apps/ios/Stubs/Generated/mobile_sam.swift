// What Xcode generates from mobile_sam_encoder.mlpackage and mobile_sam_decoder.mlpackage, as far as the sample uses it.
import CoreML

class mobile_sam_encoder {
    let model: MLModel
    init(configuration: MLModelConfiguration = MLModelConfiguration()) throws { throw CocoaError(.featureUnsupported) }
}

class mobile_sam_decoder {
    let model: MLModel
    init(configuration: MLModelConfiguration = MLModelConfiguration()) throws { throw CocoaError(.featureUnsupported) }
}
