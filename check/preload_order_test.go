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
