package synth

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/outsight-vmi/outsight/phys"
)

// Parts of the kernel image, in bytes from _text.
const (
	rodata    = 2 << 20
	data      = 4 << 20
	imageSize = 6 << 20
)

// variable is a variable, or a table, in the image's data.
type variable struct {
	name  string
	size  uint32
	align uint32
}

// variables are those of this generation of kernels.
func (g *Guest) variables() []variable {
	vs := []variable{
		{"init_top_pgt", 8192, 8192},
		{"level4_kernel_pgt", 4096, 4096},
		{"level3_kernel_pgt", 4096, 4096},
		{"level2_kernel_pgt", 4096, 4096},
		{"init_task", g.types.size("task_struct"), 64},
		{"init_signals", g.types.size("signal_struct"), 64},
		{"init_uts_ns", g.types.size("uts_namespace"), 64},
		{"init_pid_ns", g.types.size("pid_namespace"), 64},
		{"page_offset_base", 8, 8},
		{"iomem_resource", g.types.size("resource"), 8},
		{"vmcoreinfo_data", 8, 8},
		{"vmcoreinfo_size", 8, 8},
		{"max_pfn", 8, 8},
		{"max_low_pfn", 8, 8},
		{"saved_command_line", 8, 8},
		{"system_state", 4, 4},
		{"nr_cpu_ids", 4, 4},
		{"boot_cpu_data", g.types.size("cpuinfo_x86"), 64},
		{"__cpu_online_mask", 16, 8},
		{"__cpu_present_mask", 16, 8},
		{"__cpu_possible_mask", 16, 8},
		{"__per_cpu_offset", 8 * 64, 64},
		{"cpu_khz", 4, 4},
		{"tty_drivers", 16, 8},
		{"tty_fops", 64, 64},
		{"x86_cap_flags", 22 * 32 * 8, 64},
		{"x86_bug_flags", 2 * 32 * 8, 64},
		{"apparmor_initialized", 4, 4},
		{"apparmor_blob_sizes", 64, 8},
		{"direct_functions", 8, 8},
		{"ftrace_ops_list", 8, 8},
		{"ftrace_list_end", g.types.size("ftrace_ops"), 8},
		{"ftrace_pages_start", 8, 8},
		{"ftrace_ops_trampoline_list", 16, 8},
		{"trampoline_table", 8 * 1024, 8},
		{"__bpf_tramp_image_put_rcu_tasks", 8, 8},
		{"__bpf_tramp_image_put_rcu", 8, 8},
		{"__bpf_tramp_image_put_deferred", 8, 8},
		{"rcu_tasks", g.types.size("rcu_tasks"), 8},
		{"rcu_tasks_trace", g.types.size("rcu_tasks"), 8},
		{"jiffies", 8, 8},
		{"__vsyscall_page", 4096, 4096},
		{"xen_domain_type", 4, 4},
	}
	if g.Old {
		return append(vs, variable{"shadow_timekeeper", g.types.size("timekeeper"), 8})
	}
	return append(vs, variable{"tk_core", g.types.size("tk_data"), 8}, variable{"btf_modules", 16, 8})
}

// buildImage writes the read-only data and gives every symbol its place.
func (g *Guest) buildImage() {
	var list []Symbol
	add := func(name string, typ byte, rel int64) {
		list = append(list, Symbol{Name: name, Type: typ, Rel: rel})
		g.symbols[name] = rel
	}
	if g.Layout.percpu() {
		for i, name := range []string{"fixed_percpu_data", "cpu_debug_store", "current_task", "cpu_info"} {
			list = append(list, Symbol{Name: name, Type: 'A', Rel: int64(i * 64), Percpu: true})
		}
	}
	add("_text", 'T', 0)
	add("startup_64", 'T', 0)
	add("_stext", 'T', 0)
	for i := range g.Filler {
		list = append(list, Symbol{Name: fmt.Sprintf("__x64_sys_filler_%d", i), Type: 't', Rel: int64(64 + 32*i)})
	}
	add("_etext", 'T', rodata)
	add("__start_rodata", 'R', rodata)
	banner := int64(rodata)
	if g.Displaced {
		banner += 0x3000
		g.Memory.CString(g.TextPA+rodata, "something else stands where the banner often is")
	}
	add("linux_banner", 'R', banner)
	g.Memory.CString(g.TextPA+phys.Addr(banner), g.Banner()+"\n")
	at := int64(rodata + 0x4000)
	if !g.NoTypes {
		blob := g.types.blob()
		add("__start_BTF", 'R', at)
		g.Memory.Bytes(g.TextPA+phys.Addr(at), blob...)
		add("__stop_BTF", 'R', at+int64(len(blob)))
		at += int64(len(blob)+63) &^ 63
	}
	notes := note("GNU", 3, g.BuildID)
	add("__start_notes", 'R', at)
	g.Memory.Bytes(g.TextPA+phys.Addr(at), notes...)
	add("__stop_notes", 'R', at+int64(len(notes)))
	at += 4096
	tables := at &^ 63
	next := int64(data)
	for _, v := range g.variables() {
		next = (next + int64(v.align) - 1) &^ (int64(v.align) - 1)
		add(v.name, 'D', next)
		next += int64(v.size)
	}
	add("_end", 'B', imageSize)
	if g.FunctionsOnly { // scripts/kallsyms.c leaves out what lies at the text's end, too
		list = slices.DeleteFunc(list, func(s Symbol) bool {
			if !g.Old && (strings.HasPrefix(s.Name, "__start_") || strings.HasPrefix(s.Name, "__stop_")) {
				return false // newer ones keep these
			}
			return s.Type|0x20 != 't' || s.Name == "_etext"
		})
	}
	blob := Kallsyms(g.Layout, list, tables, g.Text)
	if tables+int64(len(blob)) > data {
		panic("too many symbols")
	}
	g.Memory.Bytes(g.TextPA+phys.Addr(tables), blob...)

	// Objects lie behind the image, or, where RAM is in two parts, in the other
	// part: then only the right map leads to them.
	rs := g.ranges()
	g.free, g.end = g.TextPA+imageSize, rs[0].End
	if len(rs) == 2 {
		g.free, g.end = rs[1].Start+1<<20, rs[1].End
		if g.TextPA >= rs[1].Start {
			g.free, g.end = 1<<20, rs[0].End
		}
	}
}

// note is an ELF note.
func note(name string, typ uint32, desc []byte) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)+1))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, typ)
	for _, part := range [][]byte{append([]byte(name), 0), desc} {
		b = append(b, part...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	return b
}

// buildVariables gives the kernel's variables their values.
func (g *Guest) buildVariables() {
	g.Put64(g.Address("page_offset_base"), g.DirectBase)
	rs := g.ranges()
	g.Put64(g.Address("max_low_pfn"), uint64(rs[0].End/phys.PageSize))
	g.Put64(g.Address("max_pfn"), uint64(rs[len(rs)-1].End/phys.PageSize))
	g.Memory.Uint32(g.Phys(g.Address("system_state")), g.State)
	g.Memory.Uint32(g.Phys(g.Address("nr_cpu_ids")), uint32(g.CPUs))
	for cpu := range g.CPUs {
		for _, mask := range []string{"possible", "present", "online"} {
			g.Put(g.Address("__cpu_"+mask+"_mask")+uint64(cpu/8), []byte{byte(1<<(cpu%8+1) - 1)})
		}
		area := g.Alloc(phys.PageSize, phys.PageSize)
		g.areas = append(g.areas, area)
		g.Put64(g.Address("__per_cpu_offset")+uint64(8*cpu), area)
	}
	if g.PTI {
		caps := g.Address("boot_cpu_data") + g.Member("cpuinfo_x86", "x86_capability")
		g.Memory.Uint32(g.Phys(caps+4*7), 1<<11)
	}
	g.listInit(g.Address("tty_drivers"))
	g.listInit(g.Address("ftrace_ops_trampoline_list"))
	g.SetClock(g.Boot, g.Now)
	g.Put64(g.Address("saved_command_line"), g.CString("console=ttyS0 quiet"))
	uts := g.Address("init_uts_ns")
	for member, text := range map[string]string{"sysname": "Linux", "nodename": "synth", "release": g.Release, "machine": "x86_64"} {
		g.Memory.CString(g.Phys(uts+g.Member("uts_namespace", "name."+member)), text)
	}
	g.SetVmcoreinfo(g.Vmcoreinfo())
}

// Vmcoreinfo is the note that a kernel like this one writes of itself.
func (g *Guest) Vmcoreinfo() string {
	l5 := 0
	if g.Levels == 5 {
		l5 = 1
	}
	return fmt.Sprintf("OSRELEASE=%s\nBUILD-ID=%x\nPAGESIZE=4096\nSYMBOL(init_uts_ns)=%x\nSYMBOL(swapper_pg_dir)=%x\nNUMBER(phys_base)=%d\nNUMBER(pgtable_l5_enabled)=%d\nKERNELOFFSET=%x\n",
		g.Release, g.BuildID, g.Address("init_uts_ns"), g.Address("init_top_pgt"), int64(g.TextPA)-int64(g.Text-ImageBase), l5, g.Text-LinkText)
}

// SetVmcoreinfo makes the kernel say text of itself.
func (g *Guest) SetVmcoreinfo(text string) {
	a := g.Alloc(phys.PageSize, phys.PageSize)
	g.Memory.CString(g.Phys(a), text)
	g.Put64(g.Address("vmcoreinfo_data"), a)
	g.Put64(g.Address("vmcoreinfo_size"), uint64(len(text)))
}
