package sched

import (
	"fmt"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/virt"
)

// Load is how busy a guest is.
type Load struct {
	// Averages are the load averages over 1, 5 and 15 minutes, as /proc/loadavg
	// shows them with two decimals.
	Averages [3]float64
	Threads  int64 // tasks that there are, idle ones of processors left out
}

// ReadLoad reads how busy the guest is.
func ReadLoad(s *linux.System) (l Load, err error) {
	averages, err := s.SymbolAddr("avenrun")
	if err != nil {
		return l, fmt.Errorf("load: %w", err)
	}
	threads, err := s.SymbolAddr("nr_threads")
	if err != nil {
		return l, fmt.Errorf("load: %w", err)
	}
	r := s.Reader()
	for i := range l.Averages {
		l.Averages[i] = loadAverage(r.U64(averages + virt.Addr(8*i)))
	}
	l.Threads = int64(int32(r.U32(threads)))
	return l, r.Err
}

// loadAverage is fixed point with 11 bits behind the point, rounded to hundredths as
// loadavg_proc_show does. Hundredths are divided once: 1 + 0.39 is not the number that
// 1.39 is read as.
func loadAverage(v uint64) float64 {
	const one = 1 << 11
	v += one / 200
	return float64(v/one*100+v%one*100/one) / 100
}
