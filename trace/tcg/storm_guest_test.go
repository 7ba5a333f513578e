package tcg_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/trace/tcg"
)

// life is when a process was made, ran another program, and ended.
type life struct{ fork, exec, exit time.Time }

// TestGuestStorm sees every fork, exec and exit of a storm of short processes, in order, and as many as the kernel counted.
func TestGuestStorm(t *testing.T) {
	n := 500
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		n = 10_000
	}
	g := traced(t, lab.Options{Name: "storm", Kernel: "6.12", SMP: 2})
	labtest.Output(t, g, fmt.Sprintf("printf '#!/bin/sh\\ni=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done\\n' >/tmp/storm; chmod +x /tmp/storm; echo ok", n))
	before := forked(t, g)
	stop := watch(t, g, tcg.Options{Calls: []string{"fork", "vfork", "clone", "clone3", "execve", "exit_group"}, Ring: 64 << 20})
	labtest.Output(t, g, "/tmp/storm; echo done")
	all := stop()
	after := forked(t, g)

	lives, children, forks := map[int64]*life{}, map[int32][]int64{}, uint64(0)
	of := func(pid int64) *life {
		if lives[pid] == nil {
			lives[pid] = &life{}
		}
		return lives[pid]
	}
	shell := int32(0)
	for i := range all {
		e := &all[i]
		switch {
		case slices.Contains([]string{"fork", "vfork", "clone", "clone3"}, e.Name):
			if e.Return > 0 {
				forks++
				of(e.Return).fork = e.Time
				children[e.TID] = append(children[e.TID], e.Return)
			}
		case e.Name == "exit_group":
			of(int64(e.TID)).exit = e.Time
		case e.Name == "execve" && e.Return == 0:
			if strings.Contains(e.Args, `"/bin/true"`) {
				of(int64(e.TID)).exec = e.Time
			}
			if strings.Contains(e.Args, `"/tmp/storm"`) {
				shell = e.TID
			}
		}
	}
	mine := children[shell]
	whole := 0
	for i, pid := range mine {
		l := lives[pid]
		switch {
		case i > 0 && !l.fork.After(lives[mine[i-1]].fork):
			t.Errorf("process %d is not in order", pid)
		case l.exec.IsZero() || l.exit.IsZero():
			t.Errorf("process %d: exec at %v, exit at %v", pid, l.exec, l.exit)
		case !l.exec.After(l.fork) || !l.exit.After(l.exec):
			t.Errorf("process %d: fork at %v, exec at %v, exit at %v", pid, l.fork, l.exec, l.exit)
		default:
			whole++
		}
	}
	t.Logf("%d processes of the storm forked, ran a program and ended, in order; %d forks in all, the kernel counted %d", whole, forks, after-before)
	if len(mine) != n || whole != n {
		t.Errorf("%d children of the shell, %d with a whole life, not %d", len(mine), whole, n)
	}
	// The kernel counts its own threads, too.
	if kernel := after - before; kernel < forks || kernel > forks+20 {
		t.Errorf("%d forks were seen, the kernel counted %d", forks, kernel)
	}
}

// forked is how many tasks the kernel has made.
func forked(t *testing.T, g *lab.Guest) uint64 {
	t.Helper()
	l, err := guest.LookAt(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := l.Linux.SymbolAddr("total_forks")
	if err != nil {
		t.Fatal(err)
	}
	n, err := l.Linux.Space.U64(a)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
