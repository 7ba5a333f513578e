package check

import (
	"testing"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/hooks"
)

// TestContradictions: what system calls can give is not a contradiction, and what they cannot
// is.
func TestContradictions(t *testing.T) {
	const full = 1<<41 - 1
	sound := map[string]credentials{
		"root":                      {effective: full, permitted: full},
		"a user":                    {uid: 1000, userUID: 1000},
		"root without capabilities": {},
		"a user of a namespace":     {uid: 1000, userUID: 1000, ucountsUID: 1000, effective: full, permitted: full, userNS: 7, ucounts: 3, ucountsNS: 7},
		"an ambient one":            {uid: 33, userUID: 33, effective: 1 << 10, permitted: 1 << 10, inherited: 1 << 10, ambience: 1 << 10},
		"inheritable alone":         {inherited: 1 << 10},
		"of a kernel before 5.14":   {userNS: 7},
	}
	for name, c := range sound {
		if got := c.contradictions(full); len(got) != 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	unsound := map[string]struct {
		c    credentials
		want int
	}{
		"a user who became root":       {credentials{uid: 0, userUID: 1000}, 1},
		"effective, not permitted":     {credentials{effective: 2, permitted: 1}, 1},
		"all bits":                     {credentials{effective: ^uint64(0), permitted: ^uint64(0)}, 1},
		"all bits inheritable":         {credentials{inherited: ^uint64(0)}, 1},
		"ambient out of nothing":       {credentials{ambience: 1}, 2},
		"limited as another":           {credentials{uid: 0, euid: 0, userUID: 0, ucountsUID: 1000, userNS: 7, ucounts: 3, ucountsNS: 7}, 1},
		"in another namespace":         {credentials{userNS: 7, ucounts: 3, ucountsNS: 8}, 1},
		"a user and his capabilities ": {credentials{uid: 0, userUID: 5, effective: 1}, 2},
	}
	for name, u := range unsound {
		if got := u.c.contradictions(full); len(got) != u.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestStrangePath: what distributions have is silent, and what everybody may write is not.
func TestStrangePath(t *testing.T) {
	for _, h := range []struct {
		name, command string
		want          Severity
	}{
		{"modprobe_path", "/sbin/modprobe", ""},
		{"modprobe_path", "/usr/sbin/modprobe", ""},
		{"modprobe_path", "/nix/store/abc-kmod/bin/modprobe", ""},
		{"modprobe_path", "", ""},
		{"modprobe_path", "/tmp/x", High},
		{"modprobe_path", "/usr/../tmp/x", High},
		{"modprobe_path", "/tmpx/x", High},
		{"modprobe_path", "x", High},
		{"modprobe_path", "/usr/bin/\x90\x90", High},
		{"modprobe_path", "/proc/77/fd/3", High},
		{"modprobe_path", "/srv/x", High},
		{"core_pattern", "core", ""},
		{"core_pattern", "/tmp/core.%p", ""},
		{"core_pattern", "|/usr/lib/systemd/systemd-coredump %P %u", ""},
		{"core_pattern", "|/usr/share/apport/apport -p%p", ""},
		{"core_pattern", "| /usr/libexec/abrt-hook-ccpp %s", ""},
		{"core_pattern", "|/dev/shm/x", High},
		{"core_pattern", "|/usr/lib/.hidden/x %p", High},
		{"uevent_helper", "", ""},
		{"the interpreter x of binfmt_misc", "/usr/bin/qemu-arm-static", ""},
		{"the interpreter x of binfmt_misc", "/var/tmp/i", High},
	} {
		why, severity, sure := strangePath(helper{name: h.name, command: h.command})
		if severity != h.want || (why == "") != (h.want == "") || (sure == "") != (h.want == "") {
			t.Errorf("%s %q: %q, %s, %s", h.name, h.command, why, severity, sure)
		}
	}
}

// TestLegalTarget: where a call for tracing may lead.
func TestLegalTarget(t *testing.T) {
	direct := &hooks.FtraceSite{Flags: []string{"enabled", "direct", "direct_enabled"}}
	for _, c := range []struct {
		site  *hooks.FtraceSite
		owner linux.Owner
		want  bool
	}{
		{&hooks.FtraceSite{}, linux.Owner{Kind: linux.OwnerKernel, Symbol: "ftrace_caller"}, true},
		{&hooks.FtraceSite{}, linux.Owner{Kind: linux.OwnerKernel, Symbol: "ftrace_caller", Offset: 1}, false},
		{&hooks.FtraceSite{}, linux.Owner{Kind: linux.OwnerKernel, Symbol: "commit_creds"}, false},
		{&hooks.FtraceSite{}, linux.Owner{Kind: linux.OwnerTrampoline, Name: "ftrace"}, true},
		{&hooks.FtraceSite{}, linux.Owner{Kind: linux.OwnerTrampoline, Name: "kprobes"}, false},
		{&hooks.FtraceSite{}, linux.Owner{Kind: linux.OwnerProgram}, false},
		{direct, linux.Owner{Kind: linux.OwnerProgram}, true},
		{direct, linux.Owner{Kind: linux.OwnerModule}, false},
		{direct, linux.Owner{Kind: linux.OwnerNone}, false},
	} {
		if got := legalTarget(c.site, c.owner); got != c.want {
			t.Errorf("%+v from %v: %v", c.owner, c.site.Flags, got)
		}
	}
}
