package check

import (
	"time"

	"github.com/outsight-vmi/outsight/vm/proc"
)

// What a guest takes to finish something is time in which its processors run. Where the host has other things to do, that is little of the time that
// passes, and nothing in the guest shows it: its clocks go on. The host knows for how long the threads of the machine waited for a processor.

const (
	// leastPace is how slowly time may pass at least: a belief must end on a host that is always busy, too.
	leastPace = 1.0 / 8
	// mostStretch is how much longer than busyAfter the next look at a busy guest is waited for at most.
	mostStretch = 4
)

// paced is a clock that goes on as fast as a machine gets the processors that it asks for.
type paced struct {
	pid         int
	ran, waited time.Duration
	host, at    time.Time
	pace        float64 // at last; 0: not known
}

// pace is the time of a look at a machine that runs as process pid (0: it does not), by a clock that waits for it.
func (h *History) pace(at time.Time, pid int) time.Time {
	ran, waited, err := time.Duration(0), time.Duration(0), error(nil)
	if pid != 0 {
		ran, waited, err = proc.Scheduled(pid)
	}
	if pid == 0 || err != nil {
		ran, waited = 0, 0
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.paced.next(at, pid, ran, waited)
	return h.paced.at
}

func (p *paced) next(at time.Time, pid int, ran, waited time.Duration) {
	if p.host.IsZero() || p.pid != pid {
		*p = paced{pid: pid, ran: ran, waited: waited, host: at, at: at}
		return
	}
	p.pace = 1
	// Threads that have ended take their times with them.
	if r, w := ran-p.ran, waited-p.waited; r >= 0 && w > 0 {
		p.pace = max(leastPace, float64(r)/float64(r+w))
	}
	p.at = p.at.Add(time.Duration(float64(at.Sub(p.host)) * p.pace))
	p.host, p.ran, p.waited = at, ran, waited
}

// stretch is how long to wait for what takes a guest that is not starved d.
func (h *History) stretch(d time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.paced.pace == 0 {
		return d
	}
	return time.Duration(float64(d) * min(mostStretch, 1/h.paced.pace))
}

// pacedNow is the time of the last look.
func (h *History) pacedNow() time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.paced.at
}
