package breakpoint

import (
	"errors"
	"strings"
	"testing"

	"github.com/outsight-vmi/outsight/vm"
)

func TestEntry(t *testing.T) {
	const nop, old, call = "\x0f\x1f\x44\x00\x00", "\x66\x66\x66\x66\x90", "\xe8\x01\x02\x03\x04"
	for _, c := range []struct {
		code        string
		offset, nop int
	}{
		{"\xf3\x0f\x1e\xfa" + nop + "\x55", 4, 5},
		{"\x66\x0f\x1f\x00" + nop + "\x55", 4, 5},
		{"\x0f\x1f\x40\xd6" + nop + "\x55", 4, 5},
		{nop + "\x41\x57", 0, 5},
		{old + "\x55", 0, 5},
		{"\xf3\x0f\x1e\xfa" + call, 4, 0}, // it is traced
		{call, 0, 0},
		{"\x55\x48\x89\xe5", 0, 0},
		{"\xf3\x0f\x1e\xfa", 4, 0},
		{"", 0, 0},
	} {
		if offset, nop := entry([]byte(c.code)); offset != c.offset || nop != c.nop {
			t.Errorf("% x: %d, %d, want %d, %d", c.code, offset, nop, c.offset, c.nop)
		}
	}
}

func TestAddress(t *testing.T) {
	for in, want := range map[string]string{
		"\x02\x00\x1f\x90\x7f\x00\x00\x01":                                                           "127.0.0.1:8080",
		"\x0a\x00\x00\x50\x00\x00\x00\x00" + strings.Repeat("\x00", 15) + "\x01":                     "[::1]:80",
		"\x0a\x00\x00\x50\x00\x00\x00\x00" + strings.Repeat("\x00", 10) + "\xff\xff\x01\x02\x03\x04": "1.2.3.4:80",
		"\x01\x00/run/x\x00yz": "/run/x",
		"\x01\x00\x00name":     "@name",
		"\x01\x00":             "unix",
		"\x10\x00\x00\x00":     "netlink",
		"\x63\x00":             "family 99",
		"\x02\x00\x1f":         "inet",
		"\x00\x00":             "",
		"\x02":                 "",
		"":                     "",
	} {
		if got := parseAddress([]byte(in)).String(); got != want {
			t.Errorf("% x: %q, want %q", in, got, want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add([]byte("\x02\x00\x1f\x90\x7f\x00\x00\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), maxAddress)]
		if a := parseAddress(b); len(a.path) > maxAddress {
			t.Errorf("%q", a.path)
		}
	})
}

func TestFolder(t *testing.T) {
	for want, m := range map[string]vm.Info{
		"/var/lib/libvirt/qemu/domain-1-web": {Command: []string{"qemu", "-object", `{"qom-type":"secret","id":"masterKey0","format":"raw","file":"/var/lib/libvirt/qemu/domain-1-web/master-key.aes"}`}},
		"/var/lib/libvirt/qemu/domain-2-old": {Command: []string{"qemu", "-object", "secret,id=masterKey0,format=raw,file=/var/lib/libvirt/qemu/domain-2-old/master-key.aes"}},
		"/run/vm":                            {QMP: "/run/vm/qmp"},
	} {
		if got, err := folder(&vm.Machine{Info: m}); got != want || err != nil {
			t.Errorf("%+v: %s, %v", m, got, err)
		}
	}
	if got, err := folder(&vm.Machine{}); err == nil {
		t.Error(got)
	}
}

// The path by which another mount namespace's socket is reached is longer than the one that QEMU has for it.
func TestCheckSocket(t *testing.T) {
	name := "/" + strings.Repeat("d", 106)
	if err := checkSocket(name, "trace", 4711); err != nil {
		t.Errorf("%d bytes: %v", len(name), err)
	}
	err := checkSocket("/proc/4711/root"+name, "trace", 4711)
	var refused *vm.Error
	if !errors.As(err, &refused) || !errors.Is(err, vm.ErrUnsupported) || !strings.Contains(refused.Do, "nsenter --mount --target 4711") {
		t.Errorf("in another mount namespace: %+v", err)
	}
	if err := checkSocket(name+"d", "trace", 4711); err == nil || strings.Contains(err.Error(), "nsenter") {
		t.Errorf("108 bytes: %v", err)
	}
}

// Every place has its own kind.
func TestPlaces(t *testing.T) {
	for kind, ways := range places {
		for _, way := range ways {
			for _, p := range way {
				if p.kind != kind || p.read == nil {
					t.Errorf("%s: %s", kind, p.function)
				}
			}
		}
	}
	for _, k := range Default() {
		if places[k] == nil {
			t.Errorf("there is no place for %s", k)
		}
	}
	if n := len(Default()); n != 4 {
		t.Errorf("%d kinds for four slots", n)
	}
}
