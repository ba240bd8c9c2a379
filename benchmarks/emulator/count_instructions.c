// Counts the ARM64 instructions that a program executes under QEMU's user-mode emulation, by class.
//
// A plugin for QEMU's plugin API version 1 (QEMU 7.2 to 8.2), declared by hand so that no header is needed:
//
//     gcc -O2 -shared -fPIC count_instructions.c -o count_instructions.so
//     qemu-aarch64 -plugin ./count_instructions.so,out=counts.jsonl PROGRAM
//
// The program marks what it wants counted by a system call that does not exist: 7777 with argument 0 sets the counts
// to zero, with argument 1 appends them to the file as one line of JSON. Counts are exact for a program of one thread.

#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MARK_SYSCALL = 7777, INLINE_ADD = 0 };

typedef uint64_t plugin_id;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*on_translation)(plugin_id, struct qemu_plugin_tb *);
typedef void (*on_syscall)(plugin_id, unsigned cpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                           uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, on_translation);
void qemu_plugin_register_vcpu_syscall_cb(plugin_id, on_syscall);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *counter, uint64_t step);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

// An instruction belongs to the first class with (word & mask) == bits.
static const struct {
  const char *name;
  uint32_t mask, bits;
} CLASSES[] = {
    // SME: one outer product is as many multiply-adds as its streaming vector length squared.
    {"outer_product", 0xDE800000, 0x80800000},
    // Vector multiply-adds of float32 and float64: NEON by vector and by element, SVE by vector and by element.
    {"float_multiply_add", 0xBF20FC00, 0x0E20CC00},
    {"float_multiply_add", 0xBF80B400, 0x0F801000},
    {"float_multiply_add", 0xFF200000, 0x65200000},
    {"float_multiply_add", 0xFFA0F800, 0x64A00000},
    // Products of four int8 pairs a lane: sdot, udot and usdot, by vector and by element; then SVE's.
    {"int8_dot", 0x9FE0FC00, 0x0E809400},
    {"int8_dot", 0xBFE0FC00, 0x0E809C00},
    {"int8_dot", 0x9FC0F400, 0x0F80E000},
    {"int8_dot", 0xBFC0F400, 0x0F80F000},
    {"int8_dot", 0xBFC0F400, 0x0F00F000},
    {"int8_dot", 0xFFA0F800, 0x44800000},
    {"int8_dot", 0xFFE0FC00, 0x44807800},
    {"int8_dot", 0xFFE0F800, 0x44A00000},
    {"int8_dot", 0xFFE0F800, 0x44A01800},
    // 2x8 by 8x2 int8 products: smmla, ummla, usmmla; then SVE's.
    {"int8_matrix", 0xDFE0F400, 0x4E80A400},
    {"int8_matrix", 0xFF20FC00, 0x45009800},
    // Loads and stores of SME and SVE; class_of tells all others apart.
    {"vector_store", 0xFE200000, 0xE0200000},
    {"vector_load", 0xFE200000, 0xE0000000},
    {"vector_store", 0xFE000000, 0xE4000000},
    {"vector_load", 0xBE000000, 0x84000000},
    {"vector_load", 0xFE000000, 0xA4000000},
    {"vector_other", 0x9E000000, 0x80000000},
    {"vector_other", 0x1E000000, 0x04000000},
    {"vector_other", 0x0E000000, 0x0E000000},
    {"other", 0, 0},
};

static int is_load(uint32_t word) {
  if ((word & 0x3B000000) == 0x18000000) return 1;                     // from the program's text
  if ((word & 0x3A000000) != 0x38000000) return (word >> 22) & 1;      // pairs, structures, exclusive
  if (word >> 26 & 1) return (word >> 22) & 1;                         // vector registers
  return ((word >> 22) & 3) != 0;                                      // general registers, prefetches among them
}

static const char *class_of(uint32_t word) {
  if ((word & 0x0A000000) == 0x08000000) {
    int vector = word >> 26 & 1;
    return is_load(word) ? (vector ? "vector_load" : "load") : (vector ? "vector_store" : "store");
  }
  size_t i = 0;
  while ((word & CLASSES[i].mask) != CLASSES[i].bits) i++;
  return CLASSES[i].name;
}

static const char *const NAMES[] = {"outer_product", "float_multiply_add", "int8_dot", "int8_matrix", "vector_load",
                                    "vector_store",  "vector_other",       "load",     "store",       "other"};
enum { N_NAMES = sizeof NAMES / sizeof *NAMES };

// A block of instructions that QEMU translated at once: how often it ran, and how many of each class are in it.
struct block {
  uint64_t runs;
  uint32_t of_class[N_NAMES];
  struct block *next;
};
static struct block *blocks;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *out_path = "counts.jsonl";

static void translated(plugin_id id, struct qemu_plugin_tb *tb) {
  (void)id;
  struct block *block = calloc(1, sizeof *block);
  if (!block) abort();
  for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++) {
    uint32_t word;
    memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), sizeof word);
    const char *name = class_of(word);
    for (int k = 0; k < N_NAMES; k++) block->of_class[k] += !strcmp(name, NAMES[k]);
  }
  pthread_mutex_lock(&lock);
  block->next = blocks;
  blocks = block;
  pthread_mutex_unlock(&lock);
  qemu_plugin_register_vcpu_tb_exec_inline(tb, INLINE_ADD, &block->runs, 1);
}

static void called(plugin_id id, unsigned cpu, int64_t number, uint64_t mark, uint64_t a2, uint64_t a3, uint64_t a4,
                   uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
  (void)id, (void)cpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
  if (number != MARK_SYSCALL) return;
  uint64_t counts[N_NAMES] = {0};
  pthread_mutex_lock(&lock);
  for (struct block *block = blocks; block; block = block->next) {
    for (int k = 0; k < N_NAMES; k++) counts[k] += block->runs * block->of_class[k];
    if (!mark) block->runs = 0;
  }
  pthread_mutex_unlock(&lock);
  if (!mark) return;
  FILE *out = fopen(out_path, "a");
  if (!out) {
    perror(out_path);
    exit(1);
  }
  for (int k = 0; k < N_NAMES; k++)
    fprintf(out, "%s\"%s\": %llu", k ? ", " : "{", NAMES[k], (unsigned long long)counts[k]);
  fprintf(out, "}\n");
  fclose(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv) {
  (void)info;
  for (int i = 0; i < argc; i++)
    if (!strncmp(argv[i], "out=", 4)) out_path = strdup(argv[i] + 4);
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
