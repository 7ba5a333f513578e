package process

import "golang.org/x/sys/unix"

// alive reports whether the process still has its memory. Reading nothing from
// /proc/PID/mem would always succeed, so one byte of the first mapping is read.
func (t *target) alive() bool {
	var b [1]byte
	n, err := unix.Pread(int(t.mem.Fd()), b[:], int64(t.maps[0].HVA))
	return n == 1 && err == nil
}
