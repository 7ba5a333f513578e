/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What this plugin uses of QEMU's plugin interface and of GLib. Debian ships no qemu-plugin.h, and one binary
 * has to serve several versions of the interface: what not all of them have is weak, and looked at before it
 * is called.
 *
 * Version 2 came with QEMU 9.0, 3 with 9.1 (insn_data copies), 4 with 9.2 (read_memory_vaddr), 5 with 10.1, 6 with 11.0
 * (read_register returns a bool: the array says whether there is a value), 7 with 11.1, which takes no plugin for an older one.
 */
#ifndef OUTSIGHT_API_H
#define OUTSIGHT_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))
#define OPTIONAL __attribute__((weak))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;

typedef struct qemu_info_t {
	const char *target_name;
	struct {
		int min, cur;
	} version;
	bool system_emulation;
	struct {
		int smp_vcpus, max_vcpus;
	} system;
} qemu_info_t;

enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_CB_R_REGS, QEMU_PLUGIN_CB_RW_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_plugin_register;

typedef struct {
	struct qemu_plugin_register *handle;
	const char *name, *feature;
	bool is_readonly; /* from version 6: the size of an element is read from the array */
} qemu_plugin_reg_descriptor;

typedef struct {
	uint32_t type; /* 0..4: 8 to 128 bits */
	union {
		uint8_t u8;
		uint16_t u16;
		uint32_t u32;
		uint64_t u64;
		struct {
			uint64_t low, high;
		} u128;
	} data;
} qemu_plugin_mem_value;

struct qemu_plugin_scoreboard;
typedef struct {
	struct qemu_plugin_scoreboard *score;
	size_t offset;
} qemu_plugin_u64;
enum qemu_plugin_cond { QEMU_PLUGIN_COND_NE = 3 };
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_STORE_U64 = 1 };

/* GLib's, as QEMU has it loaded. */
typedef struct {
	uint8_t *data;
	unsigned int len;
} GByteArray;
typedef struct {
	char *data;
	unsigned int len;
} GArray;
GByteArray *g_byte_array_new(void);
GByteArray *g_byte_array_set_size(GByteArray *, unsigned int);
unsigned int g_array_get_element_size(GArray *);
char *g_array_free(GArray *, int);

typedef void (*vcpu_udata_cb)(unsigned int, void *);
typedef void (*mem_cb)(unsigned int, qemu_plugin_meminfo_t, uint64_t, void *);
typedef void (*any_cb)(void); /* what it gets depends on the version */

/*
 * Before version 7 these have two arguments, and what they call gets the plugin's number first: (id), (id, vcpu), (id, tb). From
 * then on the third is passed on, last, and the number is not: (data), (vcpu, data), (tb, data). One more argument does no harm.
 */
void qemu_plugin_reset(qemu_plugin_id_t, any_cb, void *);
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t, any_cb, void *);
OPTIONAL void qemu_plugin_register_vcpu_idle_cb(qemu_plugin_id_t, any_cb, void *);
OPTIONAL void qemu_plugin_register_vcpu_resume_cb(qemu_plugin_id_t, any_cb, void *);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, any_cb, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, vcpu_udata_cb, enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *, mem_cb, enum qemu_plugin_cb_flags, enum qemu_plugin_mem_rw, void *);

size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
/* Before version 3 it has one argument and returns a pointer; from then on it copies, and returns the size. */
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *, void *, size_t);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *);

unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t);
OPTIONAL qemu_plugin_mem_value qemu_plugin_mem_get_value(qemu_plugin_meminfo_t);
OPTIONAL GArray *qemu_plugin_get_registers(void);
OPTIONAL int qemu_plugin_read_register(struct qemu_plugin_register *, GByteArray *);
OPTIONAL bool qemu_plugin_read_memory_vaddr(uint64_t, GByteArray *, size_t);
/* Since version 3. */
OPTIONAL struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t);
OPTIONAL void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *, unsigned int);
OPTIONAL void qemu_plugin_register_vcpu_insn_exec_cond_cb(struct qemu_plugin_insn *, vcpu_udata_cb, enum qemu_plugin_cb_flags, enum qemu_plugin_cond,
							  qemu_plugin_u64, uint64_t, void *);
OPTIONAL void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *, enum qemu_plugin_op, qemu_plugin_u64, uint64_t);
/* QMP's, of which QEMU lets its own modules, and so plugins, see all: before a plugin is loaded, nothing else tells the version. */
struct version_info {
	struct {
		int64_t major, minor, micro;
	} *qemu;
	char *package;
};
OPTIONAL struct version_info *qmp_query_version(void **);
void qemu_plugin_outs(const char *);

#endif
