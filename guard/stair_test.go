package guard_test

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// stair is the order of the rooms, as in ARCHITECTURE.md. A package imports only
// from lines above its own. Packages of one line do not know each other. "x/*"
// is every package below x that no other line names.
var stair = []string{
	"table/text", // what makes guest text harmless: error messages need it too
	"plugin",     // a file for QEMU
	"phys",
	"phys/file phys/note", // what readers of dumps stand on
	"phys/*",
	"phys/dump phys/acquire", // all formats together
	"vm/qmp vm/gdb vm/proc vm/guardian lab/state",
	"vm",
	"vm/ram vm/qga", // what drivers stand on
	"vm/*",
	"vm/libvirt", // QEMU, with a daemon that has its monitor
	"vm/local",   // the drivers together
	"virt",
	"virt/*",
	"kernel/*", // the tables in a kernel image, each on its own
	"kernel/image",
	"kernel/reference", // the user's store of images and modules
	"kernel",
	"linux/kobj", // how kernel objects are linked, whatever they are
	"linux",
	"linux/network linux/perf linux/image", // netfilter names devices, BPF events; shells export symbols
	"linux/netfilter linux/bpf linux/shell linux/ipc linux/mm linux/hooks linux/sched linux/device linux/sysctl",
	"linux/*",
	"disk wire",
	"disk/* wire/*",
	"disk/stack disk/live disk/cached", // what lies on what, all formats together; disks of machines that run, and what their kernels know better
	"guest",
	"plant", // the only room that writes into a guest
	"table",
	"table/*",
	"trace",
	"trace/syscall trace/plugin",
	"trace/addrspace", // beside what trace/tcg sees, by one program
	"trace/*",
	"trace/told trace/planted", // on what trace/tcg sees, and on its decoder
	"check",
	"policy",
	"respond",
	"record",
	"provenance",
	"cast",
	"serve",
	"fleet",
	"cmd/*",
}

// beside are packages that stand beside the stair, with all that they may import.
var beside = map[string]string{
	"lab":                  "vm/qmp lab/state", // what is tested must not help to make the test's guest
	"lab/labtest":          "lab",
	"bench":                "lab vm/qmp",
	"linux/linuxtest":      "lab lab/labtest linux kernel vm/local",
	"guard":                "",
	"groundtruth":          "", // tests only
	"groundtruth/guests":   "lab lab/labtest",
	"groundtruth/guests/*": "", // programs that run inside guests
}

// onlyFor are packages that few may import, tests apart.
var onlyFor = map[string]string{
	"lab":                "cmd/outsight bench lab/labtest groundtruth/guests linux/linuxtest",
	"lab/labtest":        "groundtruth/guests linux/linuxtest",
	"linux/linuxtest":    "", // tests only
	"groundtruth/guests": "", // tests only
}

func TestImportsGoDownTheStair(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue // a test may stand wherever it sees best
		}
		for _, i := range imports(s) {
			to, ours := strings.CutPrefix(i, module+"/")
			if ours && !allowed(s.pkg(), to) {
				t.Errorf("%s: %s imports %s, which is not below it on the stair", s.name, s.pkg(), to)
			}
		}
	}
}

func TestEveryPackageHasItsPlace(t *testing.T) {
	for _, s := range sources(t) {
		_, isBeside := match(beside, s.pkg())
		if step(s.pkg()) < 0 && !isBeside {
			t.Errorf("%s: package %s has no place on the stair: give it one here and in ARCHITECTURE.md", s.name, s.pkg())
		}
	}
}

func allowed(from, to string) bool {
	if users, restricted := onlyFor[to]; restricted && !lists(users, from) {
		return false
	}
	if may, ok := match(beside, from); ok {
		return lists(may, to)
	}
	if _, ok := match(beside, to); ok {
		return onlyFor[to] != "" // and from is one of them, as seen above
	}
	return step(to) < step(from)
}

// step is the place of a package on the stair; -1: none.
func step(pkg string) int {
	exact := slices.IndexFunc(stair, func(line string) bool { return lists(line, pkg) })
	if exact >= 0 {
		return exact
	}
	return slices.IndexFunc(stair, func(line string) bool {
		return slices.ContainsFunc(strings.Fields(line), func(p string) bool { return below(p, pkg) })
	})
}

func lists(line, pkg string) bool { return slices.Contains(strings.Fields(line), pkg) }

func below(pattern, pkg string) bool {
	room, wild := strings.CutSuffix(pattern, "/*")
	return wild && strings.HasPrefix(pkg, room+"/")
}

func match(rules map[string]string, pkg string) (string, bool) {
	if rule, ok := rules[pkg]; ok {
		return rule, true
	}
	for p := path.Dir(pkg); p != "."; p = path.Dir(p) {
		if rule, ok := rules[p+"/*"]; ok {
			return rule, true
		}
	}
	return "", false
}

func TestStairRules(t *testing.T) {
	for _, c := range []struct {
		from, to string
		want     bool
	}{
		{"phys/raw", "phys", true},
		{"phys", "phys/raw", false},
		{"phys/raw", "phys/mapped", false},
		{"phys", "vm", false},
		{"vm/qemu", "vm/qmp", true},
		{"vm/local", "vm/qemu", true},
		{"table", "linux", true},
		{"linux", "table", false},
		{"linux", "linux/kobj", true},
		{"linux/kobj", "linux", false},
		{"lab", "vm/qmp", true},
		{"lab", "phys", false},
		{"vm/local", "lab/state", true},
		{"vm/local", "lab", false},
		{"cmd/outsight", "lab", true},
		{"linux", "lab", false},
		{"check", "trace", true},
	} {
		if got := allowed(c.from, c.to); got != c.want {
			t.Errorf("%s may import %s: %v, want %v", c.from, c.to, got, c.want)
		}
	}
}
