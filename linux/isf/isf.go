// Package isf makes a symbol file for Volatility 3 (its "intermediate symbol
// format") of a kernel that was found in memory: types from its BTF, symbols from
// its own table. No package with debug symbols is needed.
package isf

import (
	"bufio"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"sync"
	"time"

	"github.com/outsight-vmi/outsight/kernel"
	"github.com/outsight-vmi/outsight/kernel/btf"
)

// Version is the version of the format.
const Version = "6.2.0"

// Kernel is what a symbol file is made of.
type Kernel struct {
	Profile *kernel.Profile
	Banner  string // without the end of the line
	// LinkText is where _text was linked, which KASLR has no part in.
	LinkText uint64
}

// Of is the Kernel of k.
func Of(k *kernel.Kernel) Kernel {
	return Kernel{Profile: k.Profile, Banner: k.Banner, LinkText: uint64(k.Text) - k.Offset()}
}

// Write writes the symbol file of k to w: tens of megabytes of JSON. producer and
// now are noted in it.
func Write(w io.Writer, k Kernel, producer string, now time.Time) error {
	spec, err := k.Profile.Types()
	if err != nil {
		return fmt.Errorf("types of the kernel: %w", err)
	}
	table, err := k.Profile.Table()
	if err != nil {
		return fmt.Errorf("symbols of the kernel: %w", err)
	}
	o := &output{w: bufio.NewWriterSize(w, 1<<20)}
	o.raw("{")
	o.key("metadata")
	o.value(metadata(producer, now))
	t := newTypes(spec)
	o.raw(",")
	o.key("base_types")
	o.value(t.base())
	o.raw(",")
	o.key("user_types")
	o.object(t.user)
	o.raw(",")
	o.key("enums")
	o.object(t.enums)
	o.raw(",")
	o.key("symbols")
	o.object(func(yield func(string, any) bool) {
		vars := t.variables()
		seen := map[string]bool{}
		for s := range table.All() {
			if seen[s.Name] {
				continue // static symbols may share a name: the first counts
			}
			seen[s.Name] = true
			sym := symbol{Address: k.LinkText + uint64(s.Rel)}
			if s.Percpu {
				sym.Address = uint64(s.Rel)
			}
			sym.Type = vars[s.Name]
			if s.Name == "linux_banner" {
				// As it is in memory, by which Volatility finds the file.
				b := []byte(k.Banner + "\n\x00")
				sym.Data = base64.StdEncoding.EncodeToString(b)
				n := uint32(len(b))
				sym.Type = &typeRef{Kind: "array", Count: &n, Subtype: &typeRef{Kind: "base", Name: "char"}}
			}
			if !yield(s.Name, sym) {
				return
			}
		}
	})
	o.raw("}\n")
	return cmp.Or(o.err, o.w.Flush())
}

type symbol struct {
	Address uint64   `json:"address"`
	Type    *typeRef `json:"type,omitempty"`
	Data    string   `json:"constant_data,omitempty"`
}

// plainVersion is the only form of a version that the format allows.
var plainVersion = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`[0-9]+\.[0-9]+\.[0-9]+`)
})

func metadata(producer string, now time.Time) any {
	return map[string]any{
		"format": Version,
		"producer": map[string]string{
			"name": "outsight", "version": cmp.Or(plainVersion().FindString(producer), "0.0.0"), "datetime": now.UTC().Format(time.RFC3339),
		},
		"linux": map[string]any{"symbols": []any{}, "types": []any{}},
	}
}

// output writes JSON piece by piece, so that the whole is never in memory.
type output struct {
	w   *bufio.Writer
	err error
}

func (o *output) raw(s string) {
	if o.err == nil {
		_, o.err = o.w.WriteString(s)
	}
}

func (o *output) value(v any) {
	if o.err != nil {
		return
	}
	b, err := json.Marshal(v)
	if o.err = err; err == nil {
		_, o.err = o.w.Write(b)
	}
}

func (o *output) key(name string) {
	o.value(name)
	o.raw(":")
}

func (o *output) object(members func(func(string, any) bool)) {
	o.raw("{")
	first := true
	for name, v := range members {
		if !first {
			o.raw(",\n")
		}
		first = false
		o.key(name)
		o.value(v)
		if o.err != nil {
			break
		}
	}
	o.raw("}")
}

// known are the types of variables that Volatility's plugins look at. BTF names the
// types of per-CPU variables only, and the kernel's headers fix these.
var known = map[string]string{
	"init_task": "struct task_struct", "init_mm": "struct mm_struct", "init_files": "struct files_struct",
	"init_cred": "struct cred", "init_fs": "struct fs_struct", "init_pid_ns": "struct pid_namespace",
	"init_user_ns": "struct user_namespace", "init_uts_ns": "struct uts_namespace", "init_net": "struct net",
	"init_nsproxy": "struct nsproxy", "modules": "struct list_head", "net_namespace_list": "struct list_head",
	"super_blocks": "struct list_head", "tty_drivers": "struct list_head", "ftrace_ops_list": "*struct ftrace_ops",
	"iomem_resource": "struct resource", "ioport_resource": "struct resource", "module_kset": "*struct kset",
	"mod_tree": "struct mod_tree_root", "keyboard_notifier_list": "struct atomic_notifier_head",
	"prb": "*struct printk_ringbuffer", "log_buf": "*char", "log_buf_len": "unsigned int",
	"prog_idr": "struct idr", "map_idr": "struct idr", "link_idr": "struct idr", "pid_hash": "*struct hlist_head",
	"page_offset_base": "long unsigned int", "vmalloc_base": "long unsigned int", "vmemmap_base": "long unsigned int",
	"phys_base": "long unsigned int", "jiffies": "long unsigned int", "jiffies_64": "long long unsigned int",
	"saved_command_line": "*char", "high_memory": "*void", "nr_cpu_ids": "unsigned int",
	"__cpu_online_mask": "struct cpumask", "__cpu_possible_mask": "struct cpumask", "__cpu_present_mask": "struct cpumask",
	"socket_file_ops": "struct file_operations", "tcp4_seq_ops": "struct seq_operations", "udp_seq_ops": "struct seq_operations",
	"vdso_image_64": "struct vdso_image", "boot_cpu_data": "struct cpuinfo_x86", "vmap_area_list": "struct list_head",
	"vmap_area_root": "struct rb_root", "swapper_space": "struct address_space", "shmem_aops": "struct address_space_operations",
	"timekeeper": "struct timekeeper", "console_drivers": "*struct console", "file_systems": "*struct file_system_type",
	"kernfs_root": "struct kernfs_root", "cgroup_roots": "struct list_head", "workqueues": "struct list_head",
}

// knownArrays are those of which an array is there, of a length that is not known:
// one element stands for it.
var knownArrays = map[string]string{
	"idt_table": "struct gate_struct", "__per_cpu_offset": "long unsigned int", "sys_call_table": "*void",
	"ia32_sys_call_table": "*void", "inet_protos": "*struct net_protocol",
}

func newTypes(spec *btf.Spec) *types {
	t := &types{spec: spec, names: map[btf.TypeID]string{}}
	t.name()
	return t
}
