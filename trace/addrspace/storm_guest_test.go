package addrspace_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	_ "github.com/outsight-vmi/outsight/lab/state"
	"github.com/outsight-vmi/outsight/plugin"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/addrspace"
)

// up boots a guest with the plugin.
func up(t *testing.T, o lab.Options) (*lab.Guest, *guest.Guest) {
	t.Helper()
	labtest.NeedQEMU(t)
	path, err := plugin.Install(filepath.Join(t.TempDir(), plugin.FileName))
	if err != nil {
		labtest.Need(t, err.Error())
	}
	o.Plugin = path
	g := labtest.Up(t, o)
	s, err := guest.Open(t.Context(), "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return g, s
}

// counted is what the guest's kernel says itself: how many address spaces it has made since it booted, and how many
// processes have one.
func counted(t *testing.T, g *guest.Guest) (made uint64, there int) {
	t.Helper()
	l, err := g.Look(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := l.Linux.SymbolAddr("last_mm_ctx_id")
	if err != nil {
		t.Fatal(err)
	}
	if made, err = l.Linux.Space.U64(a); err != nil {
		t.Fatal(err)
	}
	owners, err := addrspace.OwnersOf(l)
	if err != nil {
		t.Fatal(err)
	}
	all, err := owners.Listed(t.Context(), l.Linux)
	if err != nil {
		t.Fatal(err)
	}
	return made, len(all)
}

// collect follows a stream until stop is called, which returns what it saw.
func collect(t *testing.T, g *guest.Guest, o addrspace.Options) (stop func() ([]trace.Event, addrspace.Summary)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	s, err := addrspace.Start(ctx, g.Machine(), o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []trace.Event)
	go func() {
		var all []trace.Event
		for {
			var e trace.Event
			if err := s.Next(ctx, &e); err != nil {
				if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				done <- all
				return
			}
			all = append(all, e)
		}
	}()
	return func() ([]trace.Event, addrspace.Summary) {
		t.Helper()
		time.Sleep(3 * time.Second) // what ended unseen is found by then
		cancel()
		all := <-done
		if n := s.Lost(); n != 0 {
			t.Errorf("%d records were lost", n)
		}
		sum := s.Summary()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		return all, sum
	}
}

func storm(n int) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do /bin/true; i=$((i+1)); done; echo done", n)
}

// TestGuestAddressSpacesStorm counts address spaces in a storm of short processes, without anything that is known of the
// kernel, and with owners, and compares with the kernel's own count.
func TestGuestAddressSpacesStorm(t *testing.T) {
	n, kernels := 500, []string{"6.12"}
	if os.Getenv("OUTSIGHT_SLOW") != "" {
		n, kernels = 10_000, []string{"5.10", "6.12", "7.2"}
	}
	for _, kernel := range kernels {
		for _, pti := range []bool{false, true} {
			name := kernel
			o := lab.Options{Kernel: kernel, SMP: 2, Append: "pti=off"}
			if pti {
				name, o.Append = kernel+"-pti", "pti=on"
			}
			t.Run(name, func(t *testing.T) {
				lg, g := up(t, o)
				for _, owners := range []bool{false, true} {
					o := addrspace.Options{}
					if owners {
						o.Guest = g
					}
					before, were := counted(t, g)
					stop := collect(t, g, o)
					labtest.Output(t, lg, storm(n))
					all, sum := stop()
					after, are := counted(t, g)
					judge(t, fmt.Sprintf("%s, owners %v", name, owners), all, sum, after-before, int(after-before)-(are-were), n)
				}
			})
		}
	}
}

func judge(t *testing.T, name string, all []trace.Event, sum addrspace.Summary, made uint64, ended, processes int) {
	t.Helper()
	creates, exits, late, named, of := 0, 0, 0, 0, map[string]int{}
	there := map[string]bool{}
	for _, e := range all {
		switch e.Kind {
		case trace.KindSpaceCreate:
			if there[e.Object] {
				t.Errorf("%s was made twice", e.Object)
			}
			creates++
			there[e.Object] = true
			if e.Process != nil {
				named++
				of[e.Process.Comm]++
			}
		case trace.KindSpaceExit:
			exits++
			delete(there, e.Object)
			if e.Note != "" {
				late++
			}
		}
	}
	t.Logf("%s: the kernel made %d address spaces, seen %d created; %d ended, seen %d (%d late); %d with an owner: %v", name, made, creates, ended, exits, late, named, of)
	if made < 2*uint64(processes) {
		t.Errorf("the kernel made %d address spaces for %d processes that run a program", made, processes)
	}
	if uint64(creates) != sum.Created || uint64(exits) != sum.Ended {
		t.Errorf("%d and %d events, but %d and %d are counted", creates, exits, sum.Created, sum.Ended)
	}
	near := func(what string, got, want int) {
		t.Helper()
		if diff := max(got-want, want-got); diff > want/1000 {
			t.Errorf("%s: %d, the kernel counted %d", what, got, want)
		}
	}
	near("created", creates, int(made))
	near("ended", exits, ended)
}
