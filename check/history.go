package check

import (
	"sync"

	"github.com/outsight-vmi/outsight/virt"
)

// History is what checks keep of a guest from one look to the next, for what only two looks
// show: credentials that no system call can have given; and for what need not be judged again, since nothing
// that was read for it has changed. It is for one session.
type History struct {
	mu          sync.Mutex
	looks       uint64
	credentials map[taskKey]*pastCredentials
	confined    map[taskKey]*pastConfinement
	// confinedLooks counts the looks at what confines tasks.
	confinedLooks uint64
	kept          map[string]*kept // conclusions, by what they are of
	restless      map[*Check]*restless
	holders       map[string]holding                // by mutex
	explained     map[*Check]map[string]explanation // by [Finding.Key]
	releases      map[virt.Addr]releasing           // by symbol
	paced         paced
	once          bool // nobody looks again: nothing is to be kept
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
