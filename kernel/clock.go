package kernel

import (
	"fmt"
	"time"

	"github.com/outsight-vmi/outsight/virt"
)

// Clock is what the guest's timekeeper said at its last update, which is a timer
// tick ago, or longer in an idle guest.
type Clock struct {
	Now   time.Time     // wall clock
	Boot  time.Time     // wall clock less the time since boot, as btime in /proc/stat
	Up    time.Duration // since boot, time asleep included
	Slept time.Duration // how much of that it was asleep
}

// Clock reads the guest's clock.
func (k *Kernel) Clock() (Clock, error) {
	base, err := k.timekeeper()
	if err != nil {
		return Clock{}, err
	}
	read := func(path string) (int64, error) {
		f, err := k.Field("timekeeper", path)
		if err != nil {
			return 0, err
		}
		v, err := k.Space.U64(base + virt.Addr(f.Offset))
		return int64(v), err
	}
	sec, err := read("xtime_sec")
	if err != nil {
		return Clock{}, fmt.Errorf("guest clock: %w", err)
	}
	real, err := read("offs_real")
	if err != nil {
		return Clock{}, fmt.Errorf("guest clock: %w", err)
	}
	slept, err := read("offs_boot")
	if err != nil {
		return Clock{}, fmt.Errorf("guest clock: %w", err)
	}
	// The rest of the second is kept shifted, for precision (struct tk_read_base).
	var rest int64
	if n, err := read("tkr_mono.xtime_nsec"); err == nil {
		if shift, err := read("tkr_mono.shift"); err == nil {
			rest = int64(min(uint64(n)>>(uint32(shift)&63), uint64(time.Second-1)))
		}
	}
	now := time.Unix(sec, rest).UTC()
	boot := time.Unix(0, real-slept).UTC()
	return Clock{Now: now, Boot: boot, Up: now.Sub(boot), Slept: time.Duration(slept)}, nil
}

// timekeeper finds the core timekeeper. 6.13 gave its wrapper a name (tk_data),
// 6.17 made an array of it; before, a copy refreshed at each update is a variable
// of its own.
func (k *Kernel) timekeeper() (virt.Addr, error) {
	for _, name := range []string{"timekeeper_data", "tk_core"} {
		a, ok := k.Address(name)
		if !ok {
			continue
		}
		if f, err := k.Field("tk_data", "timekeeper"); err == nil {
			return a + virt.Addr(f.Offset), nil
		}
	}
	if a, ok := k.Address("shadow_timekeeper"); ok {
		return a, nil
	}
	return 0, fmt.Errorf("symbols timekeeper_data, tk_core, shadow_timekeeper: %w", ErrNoSymbol)
}
