package proc

import (
	"fmt"
	"time"
)

// Scheduled is for how long the threads of process pid ran, and for how long they were ready to run while others did, since each began. Of threads
// that have ended it knows nothing.
func Scheduled(pid int) (ran, waited time.Duration, err error) {
	dir := path(pid, "task")
	tids, err := readdirnames(dir)
	if err != nil {
		return 0, 0, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	for _, tid := range tids {
		b, err := read(dir + "/" + tid + "/schedstat")
		if err != nil {
			continue // ended meanwhile, or the host's kernel does not count
		}
		var r, w int64
		if _, err := fmt.Sscan(string(b), &r, &w); err != nil {
			return 0, 0, fmt.Errorf("process %d: thread %s: schedstat: %w", pid, tid, err)
		}
		ran, waited = ran+time.Duration(r), waited+time.Duration(w)
	}
	return ran, waited, nil
}
