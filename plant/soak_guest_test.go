package plant_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/outsight-vmi/outsight/guest"
	"github.com/outsight-vmi/outsight/lab"
	"github.com/outsight-vmi/outsight/lab/labtest"
	"github.com/outsight-vmi/outsight/plant"
)

// TestMain is also who plants, in a process of its own that is killed.
func TestMain(m *testing.M) {
	if target := os.Getenv("OUTSIGHT_PLANT_CHILD"); target != "" {
		if err := child(context.Background(), target); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child plants and removes once.
func child(ctx context.Context, target string) error {
	g, err := guest.Open(ctx, target, guest.Options{})
	if err != nil {
		return err
	}
	defer g.Close()
	plan, err := plant.Prepare(ctx, g, load)
	if err != nil {
		return err
	}
	p, err := plan.Plant(ctx)
	if err != nil {
		return err
	}
	if len(p.Problems) > 0 {
		return fmt.Errorf("problems: %q", p.Problems)
	}
	return p.Remove(ctx)
}

// TestGuestPlantSoak plants and removes in busy guests, again and again, from a process that is killed at random
// moments. Whatever it left is found and removed, the memory is as before each time, and the guest's kernel has
// nothing to complain about. make soak-planted sets OUTSIGHT_PLANT_CYCLES, over all guests.
func TestGuestPlantSoak(t *testing.T) {
	cycles := 6
	guests := []lab.Options{{Kernel: lab.DefaultKernel, SMP: 2, Private: true}}
	if v := os.Getenv("OUTSIGHT_PLANT_CYCLES"); v != "" {
		var err error
		if cycles, err = strconv.Atoi(v); err != nil {
			t.Fatalf("OUTSIGHT_PLANT_CYCLES: %v", err)
		}
		guests = nil
		for i, k := range []string{"6.1", "6.12", "7.2"} {
			guests = append(guests,
				lab.Options{Kernel: k, SMP: 1, Append: "panic_on_oops=1"},
				lab.Options{Kernel: k, SMP: 2, Private: true, Append: "panic_on_oops=1 lockdown=confidentiality pti=on"},
				lab.Options{Kernel: k, SMP: 4, Private: i == 0, Append: "panic_on_oops=1 slub_debug=FZPU"},
			)
		}
		guests = append(guests, lab.Options{Userland: lab.Debian, SMP: 2, Memory: 1 << 30, Append: "panic_on_oops=1"})
	}
	each := max(1, cycles/len(guests))
	for i, o := range guests {
		o.Name = fmt.Sprintf("plant-soak-%d", i)
		t.Run(fmt.Sprintf("%d-%s-%d", i, o.Kernel+o.Userland, o.SMP), func(t *testing.T) { plantAgainAndAgain(t, o, each) })
	}
}

// unrest is the load: short processes, files, pipes.
const unrest = `for w in 1 2; do (while :; do for i in 1 2 3 4 5 6 7 8; do /bin/true; done; cat /proc/self/maps | head -3 >/tmp/unrest.$w; done) >/dev/null 2>&1 & done; sleep 0.1`

func plantAgainAndAgain(t *testing.T, o lab.Options, cycles int) {
	t.Setenv("OUTSIGHT_PLANTED", t.TempDir())
	g := labtest.Up(t, o)
	ctx := t.Context()
	labtest.Output(t, g, "until [ $(cut -d. -f1 /proc/uptime) -ge 11 ]; do sleep 1; done; "+unrest)
	fds := labtest.Output(t, g, "ls /proc/2/fd")
	gu, err := guest.Open(ctx, "lab:"+g.Name, guest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer gu.Close()
	plan, err := plant.Prepare(ctx, gu, load)
	if err != nil {
		t.Fatal(err)
	}
	was := content(t, gu, plan)
	slab := memoryUsed(t, g)
	seed := rand.Uint64()
	t.Logf("SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	killed, left := 0, 0
	for i := range cycles {
		var stderr bytes.Buffer
		c := exec.CommandContext(ctx, os.Args[0], "-test.run=^$")
		c.Env, c.Stderr = append(os.Environ(), "OUTSIGHT_PLANT_CHILD=lab:"+g.Name), &stderr
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- c.Wait() }()
		limit := 10 * time.Minute
		if i%3 != 0 {
			limit = time.Duration(random.Int64N(int64(6 * time.Second)))
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("cycle %d: %v: %s", i, err, stderr.String())
			}
		case <-time.After(limit):
			killed++
			_ = c.Process.Kill()
			<-done
		}
		p, err := plant.Find(ctx, gu)
		switch {
		case err == nil:
			left++
			if err := p.Remove(ctx); err != nil {
				t.Fatalf("cycle %d: remove what was left (%s): %v", i, p.State, err)
			}
		case !errors.Is(err, plant.ErrNothing):
			t.Fatalf("cycle %d: %v", i, err)
		}
		if !bytes.Equal(content(t, gu, plan), was) {
			t.Fatalf("cycle %d: the memory is not what it was", i)
		}
	}
	if n := programs(ctx, t, gu); n != 0 {
		t.Errorf("%d programs of outsight's are left", n)
	}
	if now := labtest.Output(t, g, "ls /proc/2/fd"); now != fds {
		t.Errorf("the guest's kernel has the files %q, before %q", now, fds)
	}
	log := labtest.Output(t, g, "dmesg")
	for _, bad := range []string{"BUG:", "WARNING:", "Oops", "general protection", "Call Trace", "stack-protector", "int3:"} {
		if strings.Contains(log, bad) {
			t.Errorf("the guest's kernel log has %q:\n%.4000s", bad, log[strings.Index(log, bad):])
		}
	}
	t.Logf("%d cycles, killed in %d, something was left in %d; slab memory %d KiB before, %d after", cycles, killed, left, slab, memoryUsed(t, g))
}

// memoryUsed is what the kernel has in slabs and vmalloc areas, in KiB.
func memoryUsed(t *testing.T, g *lab.Guest) (kib int) {
	t.Helper()
	for _, f := range strings.Fields(labtest.Output(t, g, `awk '/^Slab:|^VmallocUsed:/ {print $2}' /proc/meminfo`)) {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		kib += n
	}
	return kib
}
