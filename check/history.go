package check

import (
	"sync"

	"github.com/outsight-vmi/outsight/virt"
)

// History is what checks keep of a guest from one look to the next, for what only two looks
// show: credentials that no system call can have given. It is for one session.
type History struct {
	mu          sync.Mutex
	looks       uint64
	credentials map[taskKey]*pastCredentials
}

// Remember has [Run] compare with what was seen before, by all runs with the same history.
// Without it a run compares its own looks alone.
func Remember(h *History) Option { return func(o *options) { o.history = h } }

// taskKey names a task for as long as it lives: the address and the PID are given again.
type taskKey struct {
	addr    virt.Addr
	pid     int32
	started uint64
}
