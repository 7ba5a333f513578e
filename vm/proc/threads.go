package proc

import (
	"bytes"
	"errors"
	"fmt"
)

// Stopped reports whether every thread of process pid has been stopped by a signal.
func Stopped(pid int) (bool, error) {
	dir := path(pid, "task")
	tids, err := readdirnames(dir)
	if err != nil {
		return false, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	for _, tid := range tids {
		stat, err := read(dir + "/" + tid + "/stat")
		if err != nil {
			continue // ended meanwhile
		}
		s, err := threadState(stat)
		if err != nil {
			return false, fmt.Errorf("process %d: thread %s: %w", pid, tid, err)
		}
		if s != 'T' && s != 'Z' && s != 'X' {
			return false, nil
		}
	}
	return len(tids) > 0, nil
}

// threadState is field 3 of stat: see startTime about field 2.
func threadState(stat []byte) (byte, error) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 || len(stat) < i+3 {
		return 0, errors.New("stat without a state")
	}
	return stat[i+2], nil
}
