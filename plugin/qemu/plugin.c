/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * outsight's plugin for QEMU's TCG: it runs small programs at places in the guest's execution, and writes what they fetch into
 * shared memory. It knows nothing of the guest's operating system.
 *
 *	-plugin FILE,socket=PATH
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "plugin.h"

/* The version for which QEMU takes this plugin: it looks here when the file has been loaded. */
EXPORT int qemu_plugin_version = 2;

__attribute__((constructor)) static void choose_version(void)
{
	struct version_info *v = qmp_query_version ? qmp_query_version(NULL) : NULL;
	if (v && v->qemu && v->qemu->major < 9)
		fprintf(stderr, "outsight: QEMU %d.%d shows plugins no registers: QEMU 9.0 or newer is needed\n", (int)v->qemu->major, (int)v->qemu->minor);
	if (v && v->qemu && (v->qemu->major > 11 || (v->qemu->major == 11 && v->qemu->minor >= 1)))
		qemu_plugin_version = 7;
}

struct program *running;
bool muted;
struct vcpu *vcpus;
unsigned int n_vcpus, started_vcpus;
int api_version;

static qemu_plugin_id_t self;

/* The registers, as the first vCPU lists them: they are the same for all. */
static pthread_mutex_t registers_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	struct qemu_plugin_register *handle;
	char name[16];
} registers[512];
static uint32_t n_registers;

static void list_registers(void)
{
	pthread_mutex_lock(&registers_lock);
	GArray *list = n_registers == 0 && qemu_plugin_get_registers ? qemu_plugin_get_registers() : NULL;
	if (list) {
		unsigned int size = g_array_get_element_size(list);
		for (unsigned int i = 0; i < list->len && n_registers < sizeof registers / sizeof *registers; i++) {
			const qemu_plugin_reg_descriptor *d = (const void *)(list->data + (size_t)i * size);
			if (!d->name || strlen(d->name) >= sizeof registers->name)
				continue;
			registers[n_registers].handle = d->handle;
			strcpy(registers[n_registers++].name, d->name);
		}
		g_array_free(list, 1);
	}
	pthread_mutex_unlock(&registers_lock);
}

struct qemu_plugin_register *register_by_name(const char *name)
{
	struct qemu_plugin_register *found = NULL;
	pthread_mutex_lock(&registers_lock);
	for (uint32_t i = 0; i < n_registers && !found; i++)
		if (strcmp(registers[i].name, name) == 0)
			found = registers[i].handle;
	pthread_mutex_unlock(&registers_lock);
	return found;
}

size_t register_names(char *to, size_t size, uint32_t *count)
{
	size_t used = 0;
	*count = 0;
	pthread_mutex_lock(&registers_lock);
	for (uint32_t i = 0; i < n_registers; i++) {
		size_t n = strlen(registers[i].name) + 1;
		if (used + n > size)
			break;
		memcpy(to + used, registers[i].name, n);
		used += n;
		++*count;
	}
	pthread_mutex_unlock(&registers_lock);
	return used;
}

static void vcpu_starts(unsigned int vcpu)
{
	list_registers();
	if (vcpu < n_vcpus && !vcpus[vcpu].bytes) {
		vcpus[vcpu].bytes = g_byte_array_new();
		gate_set(vcpu, true);
		__atomic_fetch_add(&started_vcpus, 1, __ATOMIC_RELAXED);
	}
}

/*
 * A program is changed by a reset: QEMU takes all callbacks out, throws translated code away, and calls back while no
 * vCPU runs. It does so only if a vCPU's thread asks (plugins/loader.c, plugin_reset_uninstall: elsewhere it
 * neither waits nor throws away). So the thread that has a new program leaves it here, and the
 * next vCPU that comes by asks.
 */
static pthread_mutex_t change_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static struct program *wanted;
static bool pending, asked; /* pending is read without the lock */

/*
 * A vCPU that falls asleep, or wakes, does not count as one that runs: a program can be changed at that moment by another one, and is
 * not let go of meanwhile.
 */
static void at_sleep(unsigned int vcpu)
{
	pthread_mutex_lock(&change_lock);
	translate_sleep(vcpu, false);
	pthread_mutex_unlock(&change_lock);
}

static void at_wake(unsigned int vcpu)
{
	pthread_mutex_lock(&change_lock);
	translate_sleep(vcpu, true);
	pthread_mutex_unlock(&change_lock);
}

/* What QEMU calls, by the version of its interface. */
#define OF_VCPU(f) \
	static void f##_2(qemu_plugin_id_t id, unsigned int vcpu) { (void)id, f(vcpu); } \
	static void f##_7(unsigned int vcpu, void *data) { (void)data, f(vcpu); }
OF_VCPU(vcpu_starts)
OF_VCPU(at_sleep)
OF_VCPU(at_wake)
static void translate_2(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) { (void)id, translate(tb); }
static void translate_7(struct qemu_plugin_tb *tb, void *data) { (void)data, translate(tb); }
#define CALLBACK(f) (api_version < 7 ? (any_cb)f##_2 : (any_cb)f##_7)

static void call_back(void)
{
	qemu_plugin_register_vcpu_init_cb(self, CALLBACK(vcpu_starts), NULL);
	qemu_plugin_register_vcpu_tb_trans_cb(self, CALLBACK(translate), NULL);
	if (running && running->sleeps && qemu_plugin_register_vcpu_idle_cb && qemu_plugin_register_vcpu_resume_cb) {
		qemu_plugin_register_vcpu_idle_cb(self, CALLBACK(at_sleep), NULL);
		qemu_plugin_register_vcpu_resume_cb(self, CALLBACK(at_wake), NULL);
	}
}

static void swap(void)
{
	pthread_mutex_lock(&change_lock);
	struct program *old = running;
	running = wanted;
	wanted = NULL;
	muted = false;
	asked = false;
	__atomic_store_n(&pending, false, __ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < n_vcpus; i++) {
		memset(vcpus[i].scratch, 0, sizeof vcpus[i].scratch);
		vcpus[i].tail = 0;
		if (vcpus[i].bytes) /* it has started */
			gate_set(i, true);
	}
	call_back();
	program_free(old);
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&change_lock);
}

void change_if_pending(void)
{
	if (__builtin_expect(!__atomic_load_n(&pending, __ATOMIC_RELAXED), 1))
		return;
	pthread_mutex_lock(&change_lock);
	bool ask = pending && !asked;
	asked |= ask;
	pthread_mutex_unlock(&change_lock);
	if (ask)
		qemu_plugin_reset(self, swap, NULL);
}

void program_want(struct program *p)
{
	pthread_mutex_lock(&change_lock);
	program_free(wanted); /* one that no vCPU came by for */
	wanted = p;
	muted = p == NULL;
	__atomic_store_n(&pending, p != NULL || running != NULL, __ATOMIC_SEQ_CST);
	if (running)
		ring_release_all(running);
	pthread_mutex_unlock(&change_lock);
}

void program_clock(void)
{
	pthread_mutex_lock(&change_lock);
	if (running)
		ring_clock(running);
	pthread_mutex_unlock(&change_lock);
}

bool program_runs(unsigned int milliseconds)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += (long)milliseconds * 1000000;
	until.tv_sec += until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&change_lock);
	while (pending && pthread_cond_timedwait(&changed, &change_lock, &until) == 0)
		;
	bool runs = !pending;
	pthread_mutex_unlock(&change_lock);
	return runs;
}

static int refuse(const char *why)
{
	fprintf(stderr, "outsight: %s\n", why);
	return 1;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
	const char *path = NULL;
	for (int i = 0; i < argc; i++) {
		if (strncmp(argv[i], "socket=", 7) != 0) {
			fprintf(stderr, "outsight: unknown argument %s: the plugin takes socket=PATH\n", argv[i]);
			return 1;
		}
		path = argv[i] + 7;
	}
	if (!path || !*path)
		return refuse("the plugin needs socket=PATH, where a monitor finds it");
	if (!info->system_emulation)
		return refuse("the plugin watches whole machines: use qemu-system");
	if (info->version.cur < 2)
		return refuse("this QEMU's plugin interface is older than version 2 (QEMU 9.0): it shows no registers");
	self = id;
	api_version = info->version.cur;
	n_vcpus = (unsigned int)info->system.max_vcpus;
	if (n_vcpus == 0 || n_vcpus > MAX_VCPUS)
		n_vcpus = MAX_VCPUS;
	vcpus = calloc(n_vcpus, sizeof *vcpus);
	if (!vcpus)
		return refuse("out of memory");
	struct os_hello hello = {
		.protocol = OS_PROTOCOL,
		.api_min = (uint32_t)info->version.min,
		.api_cur = (uint32_t)info->version.cur,
		.vcpus = (uint32_t)info->system.smp_vcpus,
		.max_vcpus = n_vcpus,
		.features = (qemu_plugin_read_memory_vaddr ? OS_CAN_READ_MEMORY : 0) | (qemu_plugin_mem_get_value ? OS_CAN_SEE_VALUES : 0) |
			    (gate_init() ? OS_CAN_GATE : 0),
	};
	strncpy(hello.target, info->target_name, sizeof hello.target - 1);
	call_back();
	return control_start(path, &hello) ? 0 : 1;
}
