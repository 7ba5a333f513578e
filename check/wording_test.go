package check

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/image"
)

func TestPlantTitle(t *testing.T) {
	for _, c := range []struct {
		mode, gid uint64
		nosuid    bool
		want      string
	}{
		{0o4755, 0, false, "/tmp/x makes whoever runs it root, and lies there"},
		{0o6755, 0, false, "/tmp/x makes whoever runs it root, in root's group, and lies there"},
		{0o6755, 42, false, "/tmp/x makes whoever runs it root, in group 42, and lies there"},
		{0o6744, 42, false, "/tmp/x makes whoever runs it root, and lies there"}, // no setgid without execution by the group
		{0o4755, 0, true, "/tmp/x has root's setuid bit, without effect: its file system is mounted nosuid; it lies there"},
		{0o6755, 0, true, "/tmp/x has root's setuid bit and the setgid bit of root's group, without effect: its file system is mounted nosuid; it lies there"},
	} {
		if got := plantTitle("/tmp/x", "lies there", c.mode, c.gid, c.nosuid); got != c.want {
			t.Errorf("%04o: %s", c.mode, got)
		}
	}
}

// TestToldSource: a finding names the program whose output a file is, which the file's name need not.
func TestToldSource(t *testing.T) {
	for name, text := range map[string]string{
		"ps (a.txt)":            "    PID TTY          TIME CMD\n      1 ?        00:00:01 systemd\n",
		"ls /proc (a.txt)":      "1\n2\nself\n",
		"lsmod (a.txt)":         "Module                  Size  Used by\n",
		"/proc/modules (a.txt)": "loop 40960 0 - Live 0xffffffffc03a4000\n",
		"ss (a.txt)":            "Netid State  Recv-Q Send-Q Local Address:Port Peer Address:Port\n",
		"netstat (a.txt)":       "Proto Recv-Q Send-Q Local Address           Foreign Address         State\n",
		"/proc/net (a.txt)":     "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n",
		"dmesg (a.txt)":         "[    0.000000] Linux version 6.12\n",
	} {
		told := &Told{}
		if err := told.Read("a.txt", strings.NewReader(text), time.Unix(1e9, 0)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := told.Words[0].source(); got != name {
			t.Errorf("%s, not %s", got, name)
		}
	}
	s := &Subject{Told: &Told{}}
	for name, at := range map[string]time.Time{"dps.txt": time.Unix(1e9, 0), "ps -e": {}} {
		if err := s.Told.Read(name, strings.NewReader("    PID TTY          TIME CMD\n      1 ?        00:00:01 systemd\n"), at); err != nil {
			t.Fatal(err)
		}
	}
	all := func(*Word) bool { return true }
	f := s.untold(Object{Kind: "process", PID: 7}, "process 7 (x)", "", all, func(*Word) bool { return false })
	if !strings.HasPrefix(f.Title, "process 7 (x) is not listed in the guest's ") || !strings.Contains(f.Title, "ps (dps.txt)") || !strings.Contains(f.Title, "ps -e") || strings.Contains(f.Title, "ps (ps -e)") {
		t.Error(f.Title)
	}
}

// TestOrderedLibraries: one finding for a library, however many processes still have it.
func TestOrderedLibraries(t *testing.T) {
	all := orderedLibraries{}
	for pid := int32(1); pid <= 10; pid++ {
		p := &program{Process: &linux.Process{}}
		p.PID, p.Comm = pid, "sh"
		all.add(p, image.Linked{Name: "/dev/shm/.x.so", Addr: 0x1000})
		all.add(p, image.Linked{Name: "/dev/shm/.x.so", Addr: 0x2000})
		if pid == 3 {
			all.add(p, image.Linked{Name: "/lib/y.so", Addr: 0x3000})
		}
	}
	f := all["/dev/shm/.x.so"].finding("/dev/shm/.x.so")
	if f.Title != "10 processes have /dev/shm/.x.so loaded in front of their own libraries, and nothing says so" || len(f.Evidence) != 8 || !strings.HasSuffix(f.Seen, "of 1, 2, 3, 4, 5, 6, 7, 8, and 2 more") {
		t.Errorf("%s; %s; %v", f.Title, f.Seen, f.Evidence)
	}
	if f := all["/lib/y.so"].finding("/lib/y.so"); f.Title != "process 3 (sh) has /lib/y.so loaded in front of its own libraries, and nothing says so" || f.Severity != Medium {
		t.Errorf("%s, %s", f.Title, f.Severity)
	}
	if len(all) != 2 {
		t.Errorf("%d findings", len(all))
	}
}

func TestCoverSource(t *testing.T) {
	for root, want := range map[string]string{"/1": "/1 of proc", "/": "proc", "": "proc"} {
		if got := coverSource(root, "proc"); got != want {
			t.Errorf("%q: %s", root, got)
		}
	}
}

// TestNextFilledIn: the commands can be run as they are printed.
func TestNextFilledIn(t *testing.T) {
	c := &Check{ID: "x", Next: `"outsight extract TARGET --pid PID --address ADDRESS --elf -o FILE"; "outsight struct TARGET inode ADDRESS"`}
	f := &Finding{Check: c, Object: Object{Kind: "process", PID: 7, Addr: 0x99}, nextAddr: 0x400000, Target: "'a b'"}
	if got := f.Next(); got != `"outsight extract 'a b' --pid 7 --address 0x400000 --elf -o FILE"; "outsight struct 'a b' inode ADDRESS"` {
		t.Error(got)
	}
	f = &Finding{Check: c, Object: Object{Kind: "file", Addr: 0x99}}
	if got := f.Next(); got != `"outsight extract TARGET --pid PID --address ADDRESS --elf -o FILE"; "outsight struct TARGET inode 0x99"` {
		t.Error(got)
	}
	next := func(c string, f *Finding) string {
		f.Check, f.Target = &Check{ID: "x", Next: c}, "t"
		return f.Next()
	}
	for _, c := range []struct {
		next, want string
		f          *Finding
	}{
		{`"outsight extract TARGET --module MODULE -o FILE"`, `"outsight extract t --module 'a b' -o FILE"`, &Finding{Object: Object{Kind: "module", Name: "a b"}}},
		{`"outsight extract TARGET --module MODULE -o FILE"`, `"outsight extract t --module m -o FILE"`, &Finding{Object: Object{Kind: "function pointer", Addr: 1}, nextModule: "m"}},
		{`"outsight recover TARGET PATH -o FILE"`, `"outsight recover t '/tmp/it'\''s $x' -o FILE"`, &Finding{nextPath: "/tmp/it's $x"}},
		{`"outsight search TARGET --pointer ADDRESS" "outsight read TARGET ADDRESS 4096 -o FILE"`, `"outsight search t --pointer 0x9" "outsight read t 0x9 4096 -o FILE"`, &Finding{nextAddr: 9}},
		{`"outsight struct TARGET task_struct ADDRESS"`, `"outsight struct t task_struct 0x9"`, &Finding{Object: Object{PID: 7}, nextAddr: 9}},
	} {
		if got := next(c.next, c.f); got != c.want {
			t.Errorf("%s: %s", c.next, got)
		}
	}
	// What each command cannot do without.
	needs := map[string][]string{
		"extract": {"-o FILE"}, "recover": {"PATH"}, "struct": {"ADDRESS"}, "translate": {"ADDRESS"}, "read": {"ADDRESS"}, "disassemble": {"ADDRESS"}, "search": {"ADDRESS"}, "dump": {"-o FILE"}, "strings": nil,
	}
	commands := regexp.MustCompile(`"outsight (\w+)([^"]*)"`)
	for _, c := range All() {
		for _, m := range commands.FindAllStringSubmatch(oneLine(c.Next), -1) {
			for _, word := range append([]string{" TARGET"}, needs[m[1]]...) {
				if _, is := needs[m[1]]; is && !strings.Contains(m[2], word) {
					t.Errorf("%s: %s has no %s", c.ID, m[0], word)
				}
			}
		}
	}
}
