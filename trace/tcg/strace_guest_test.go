package tcg_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// traced boots a guest with the plugin and with strace in it.
func traced(t testing.TB, o lab.Options) *lab.Guest {
	t.Helper()
	labtest.NeedQEMU(t)
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	o.Plugin = path
	files := labtest.Program(t, "/usr/bin/strace", "usr/bin/strace", "strace", "libunwind8", "liblzma5", "libc6", "libgcc-s1")
	maps.Copy(files, o.Files)
	o.Files = files
	return labtest.Up(t, o)
}

// sessions are what strace is asked to run: shell scripts of busybox, and what there is beside.
var sessions = map[string]string{
	"shell": `cd /tmp && echo hello >a && cat a | wc -c && ls -l /proc/self/ >/dev/null && mv a b && rm b; cat /nonexistent; true`,
	"files": `mkdir -p /tmp/d/e && touch /tmp/d/e/f && ln -s f /tmp/d/e/g && chmod 640 /tmp/d/e/f && find /tmp/d && stat /tmp/d/e/f >/dev/null && cp /tmp/d/e/f /tmp/d/h && rm -r /tmp/d`,
	"misc":  `id >/dev/null; uname -a >/dev/null; sleep 0.1; kill -0 1; hostname >/dev/null; date >/dev/null; dd if=/dev/zero of=/dev/null bs=1k count=3 2>/dev/null; mount >/dev/null; ps >/dev/null`,
}

// TestGuestStrace compares with strace, line by line, what both saw of the same processes.
func TestGuestStrace(t *testing.T) {
	kernels := []string{lab.DefaultKernel}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		kernels = lab.KernelNames()
	}
	for _, k := range kernels {
		t.Run(k, func(t *testing.T) {
			g := traced(t, lab.Options{Name: "strace-" + k, Kernel: k})
			for _, name := range slices.Sorted(maps.Keys(sessions)) {
				t.Run(name, func(t *testing.T) { compare(t, g, sessions[name]) })
			}
		})
	}
}

func compare(t *testing.T, g *lab.Guest, script string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	s, err := tcg.Start(ctx, gu, tcg.Options{Ring: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ours := make(chan map[int][]string)
	go func() {
		lines := map[int][]string{}
		var e trace.Event
		for {
			if err := s.Next(ctx, &e); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				ours <- lines
				return
			}
			result := e.Result
			if !e.Returned {
				result = "?"
			}
			line := fmt.Sprintf("%s(%s) = %s", e.Name, e.Args, result)
			if e.Note != "" {
				line += " <" + e.Note + ">"
			}
			lines[int(e.TID)] = append(lines[int(e.TID)], line)
		}
	}()
	labtest.Output(t, g, "strace -f -o /tmp/strace.out sh -c '"+script+"' >/dev/null 2>&1; true")
	theirs := straceLines(labtest.Output(t, g, "cat /tmp/strace.out"))
	time.Sleep(300 * time.Millisecond)
	cancel()
	seen := <-ours
	if n := s.Lost(); n > 0 {
		t.Errorf("%d events were lost", n)
	}
	total, same := 0, 0
	for _, tid := range slices.Sorted(maps.Keys(theirs)) {
		want, got := theirs[tid], fromExec(seen[tid], theirs[tid])
		total += len(want)
		for i := range want {
			switch {
			case i >= len(got):
				t.Errorf("thread %d: %d calls, strace has %d: the first that is missing is %s", tid, len(got), len(want), want[i])
			case got[i] == want[i]:
				same++
				continue
			default:
				t.Errorf("thread %d, call %d:\n got %s\nwant %s", tid, i, got[i], want[i])
				if name(got[i]) == name(want[i]) {
					continue
				}
			}
			break
		}
	}
	t.Logf("%d of %d calls of %d threads are equal", same, total, len(theirs))
	if total == 0 {
		t.Error("strace saw nothing")
	}
}

func name(line string) string {
	n, _, _ := strings.Cut(line, "(")
	return n
}

// fromExec leaves out what strace's own child did before strace saw it.
func fromExec(lines, want []string) []string {
	if len(want) == 0 || !strings.HasPrefix(want[0], "execve(") {
		return lines
	}
	for i, l := range lines {
		if strings.HasPrefix(l, "execve(") && strings.HasSuffix(l, " = 0") {
			return lines[i:]
		}
	}
	return lines
}

var (
	straceLine = regexp.MustCompile(`^(\d+) +(.*)$`)
	resumed    = regexp.MustCompile(`^<\.\.\. \w+ resumed>(.*)$`)
	equals     = regexp.MustCompile(`\) +(= [^=]*)$`)
)

// straceLines are the calls of each thread, without what strace pads them with.
func straceLines(out string) map[int][]string {
	lines, begun := map[int][]string{}, map[int]string{}
	for l := range strings.Lines(out) {
		m := straceLine.FindStringSubmatch(strings.TrimRight(l, "\n"))
		if m == nil || strings.HasPrefix(m[2], "---") || strings.HasPrefix(m[2], "+++") {
			continue
		}
		tid, _ := strconv.Atoi(m[1])
		text := m[2]
		if head, ok := strings.CutSuffix(text, " <unfinished ...>"); ok {
			begun[tid] = head
			continue
		}
		if r := resumed.FindStringSubmatch(text); r != nil {
			text = begun[tid] + r[1]
			delete(begun, tid)
		}
		lines[tid] = append(lines[tid], equals.ReplaceAllString(text, ") $1"))
	}
	for tid, head := range begun {
		lines[tid] = append(lines[tid], head+") = ?")
	}
	return lines
}
