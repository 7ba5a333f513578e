package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
)

func TestInFront(t *testing.T) {
	object := func(name string) image.Linked { return image.Linked{Name: name, Dynamic: 0x1000} }
	vdso := image.Linked{Name: "linux-vdso.so.1", Dynamic: 0x7000}
	soname := func(o image.Linked) string {
		if o.Name == "/lib/libz-1.3.so" {
			return "libz.so.1"
		}
		return ""
	}
	needed := []string{"libz.so.1", "libc.so.6"}
	for _, c := range []struct {
		name    string
		objects []image.Linked
		want    string
	}{
		{"nothing", []image.Linked{vdso, object("/lib/libc.so.6"), object("/lib/ld-linux-x86-64.so.2")}, ""},
		{"by its own name", []image.Linked{vdso, object("/lib/libz-1.3.so"), object("/lib/libc.so.6")}, ""},
		{"preloaded", []image.Linked{vdso, object("/lib/x.so"), object("/lib/libc.so.6"), object("/lib/plugin.so")}, "/lib/x.so"},
		{"opened later", []image.Linked{vdso, object("/lib/libc.so.6"), object("/lib/plugin.so")}, ""},
		{"nothing that it asks for", []image.Linked{vdso, object("/lib/x.so")}, ""},
	} {
		got := ""
		for _, o := range inFront(c.objects, needed, 0, soname) {
			got += o.Name
		}
		if got != c.want {
			t.Errorf("%s: %q, not %q", c.name, got, c.want)
		}
	}
}

// TestWithoutLinker: the dynamic linker is on its own list, and a library that has its name is none.
func TestWithoutLinker(t *testing.T) {
	linker := &linux.MappedImage{Path: "/usr/lib/ld-linux-x86-64.so.2", Start: 0x10000, End: 0x20000}
	evil := &linux.MappedImage{Path: "/tmp/ld-linux-x86-64.so.2", Start: 0x30000, End: 0x40000}
	libc := &linux.MappedImage{Path: "/usr/lib/libc.so.6", Start: 0x50000, End: 0x60000}
	objects := []image.Linked{{Name: "ld", Dynamic: 0x11000}, {Name: "evil", Dynamic: 0x31000}, {Name: "libc", Dynamic: 0x51000}}
	if got := withoutLinker(objects, []*linux.MappedImage{linker, libc}); len(got) != 2 || got[0].Name != "evil" || got[1].Name != "libc" {
		t.Errorf("%v", got)
	}
	if got := withoutLinker(objects, []*linux.MappedImage{linker, evil, libc}); len(got) != 3 {
		t.Errorf("with a second: %v", got)
	}
}

func TestIntactEnvironment(t *testing.T) {
	for name, vars := range map[string][]linux.EnvVariable{
		"none":  nil,
		"title": {{Name: "r process 3", Set: false}, {Name: "PATH", Value: "/bin", Set: true}},
		"tail":  {{Name: "0.0.0.0:80", Value: "x", Set: true}},
	} {
		if intactEnvironment(vars) {
			t.Errorf("%s is no environment", name)
		}
	}
	if !intactEnvironment([]linux.EnvVariable{{Name: "PATH", Value: "/bin", Set: true}}) {
		t.Error("PATH is one")
	}
}
