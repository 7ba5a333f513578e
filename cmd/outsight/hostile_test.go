package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/outsight-vmi/outsight/linux/synth"
	"github.com/outsight-vmi/outsight/phys"
	"github.com/outsight-vmi/outsight/table"
)

// TestHostileGuestText has a guest whose every text would write to the terminal, and
// looks at all that the command prints of it, errors too.
func TestHostileGuestText(t *testing.T) {
	const evil = "\x1b]0;x\x07\x1b[2J\u202e\u009b\r\xff"
	g := synth.New(synth.Options{})
	g.Add(synth.Process{PID: 1, Comm: "init", Exe: "/sbin/init", Args: []string{"init"}})
	g.Add(synth.Process{PID: 7, PPID: 1, Comm: evil[:15], Exe: "/bin/" + evil, Args: []string{evil, "-" + evil}, Cgroup: "/" + evil, TTY: "pts" + evil, RSS: 3})
	g.Add(synth.Process{PID: 8, PPID: 7, Comm: "k" + evil[:9], Kernel: true, FullName: evil})
	g.Add(synth.Process{PID: 9, PPID: 1, Comm: "title", Exe: "/bin/sh", Args: []string{"sh"}, Title: evil + evil})
	dump := filepath.Join(t.TempDir(), "dump"+evil)
	f, err := os.Create(dump)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Raw(f, phys.Layout{}); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	runs := [][]string{
		{"tree", dump},
		{"top", "--once", dump},
		{"top", "--once", "--tree", "--filter", evil, dump},
		{"query", dump, "select * from ps"},
		{"recover", dump, "/" + evil},
		{"ps", dump + evil},
		{evil},
		{"ps", dump, "--where", "comm == '" + evil},
		{"ps", dump, "--columns", evil},
		{"query", dump, "select " + evil},
	}
	for _, v := range table.All() {
		if !table.SpecOf(v).Host {
			runs = append(runs, []string{v.Name(), dump})
		}
	}
	seen := false
	for _, args := range runs {
		var out, errOut bytes.Buffer
		run(append(args, "--no-cache"), &out, &errOut)
		all := out.String() + errOut.String()
		i := strings.IndexFunc(all, func(r rune) bool { return unicode.IsControl(r) && r != '\n' || r == '\u202e' })
		if i >= 0 || !utf8.ValidString(all) {
			i = max(i, 0)
			t.Errorf("%q prints %q", args[0], all[max(0, i-60):min(len(all), i+60)])
		}
		seen = seen || strings.Contains(all, `\x1b]0;x\x07`)
	}
	if !seen {
		t.Error("nothing shows the hostile text")
	}
}
