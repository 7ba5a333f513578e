package hooks

import (
	"encoding/binary"
	"slices"
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

func TestParseGate(t *testing.T) {
	const handler = 0xffff_ffff_8123_4567
	var b [16]byte
	binary.LittleEndian.PutUint16(b[0:], handler&0xffff)
	binary.LittleEndian.PutUint16(b[2:], 0x10)
	binary.LittleEndian.PutUint16(b[4:], 1<<15|3<<13|14<<8|2)
	binary.LittleEndian.PutUint16(b[6:], handler>>16&0xffff)
	binary.LittleEndian.PutUint32(b[8:], handler>>32)
	want := Gate{Handler: handler, Type: "interrupt", DPL: 3, IST: 2, Segment: 0x10, Present: true}
	if got := *parseGate(b[:]); got != want {
		t.Errorf("%+v, not %+v", got, want)
	}
	binary.LittleEndian.PutUint16(b[4:], 15<<8)
	if got := parseGate(b[:]); got.Type != "trap" || got.Present || got.DPL != 0 || got.IST != 0 {
		t.Errorf("%+v", got)
	}
}

// Every bit of a gate's handler is kept, and the rest stays within its range.
func FuzzParseGate(f *testing.F) {
	f.Add(make([]byte, 16))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 16 {
			return
		}
		g := parseGate(b)
		if g.DPL > 3 || g.IST > 7 || g.Type == "" {
			t.Errorf("%+v of % x", g, b[:16])
		}
		if virt.Addr(binary.LittleEndian.Uint16(b))|virt.Addr(binary.LittleEndian.Uint16(b[6:]))<<16|virt.Addr(binary.LittleEndian.Uint32(b[8:]))<<32 != g.Handler {
			t.Errorf("handler %#x of % x", uint64(g.Handler), b[:16])
		}
	})
}

func TestSyscallName(t *testing.T) {
	for symbol, want := range map[string]string{
		"__x64_sys_read": "read", "__ia32_compat_sys_ioctl": "ioctl", "__ia32_sys_read": "read", "__do_sys_getpid": "getpid",
		"__do_compat_sys_sigreturn": "sigreturn", "sys_ni_syscall": "ni_syscall", "commit_creds": "", "__x64_sysfs": "",
	} {
		if got, ok := syscallName(symbol); got != want || ok != (want != "") {
			t.Errorf("%s is the call %q, %v; not %q", symbol, got, ok, want)
		}
	}
}

// A function is the expected one only if it is the kernel's, and that of the name.
func TestSyscallJudged(t *testing.T) {
	noted := []string{"read", ""}
	for name, c := range map[string]struct {
		call Syscall
		want bool
	}{
		"nobody's code":             {Syscall{Number: 0, Handler: 0x1000}, false},
		"nobody's, without a name":  {Syscall{Number: 1, Handler: 0x1000}, false},
		"nothing":                   {Syscall{Number: 0}, false},
		"a number nobody has noted": {Syscall{Number: 7, Handler: 0x1000}, false},
	} {
		c.call.judge(&linux.Owners{}, noted)
		if c.call.Expected != c.want {
			t.Errorf("%s: expected is %v", name, c.call.Expected)
		}
	}
}

func TestSplitComma(t *testing.T) {
	for text, want := range map[string][]string{"": nil, "a": {"a"}, "a,bc": {"a", "bc"}, ",a,,b,": {"a", "b"}} {
		if got := splitComma(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestHeadName(t *testing.T) {
	for name, want := range map[string]bool{
		"netdev_chain": true, "panic_notifier_list": true, "module_notify_list": true, "keyboard_notifier_list": true,
		"restart_handler_list": true, "init_task": false, "s2idle_ops": false, "chain_length": false,
	} {
		if headName(name) != want {
			t.Errorf("%s: %v", name, !want)
		}
	}
}
