package tcg

import (
	"sync"

	"github.com/outsight-vmi/outsight/trace/syscall"
)

// ringOperation is how an operation of io_uring is shown: as the system call that it stands for, whose arguments are these
// words of the request; 0: it has no such argument.
type ringOperation struct {
	name string // of the system call; empty: none
	args []int
}

// ringOps are by number (enum io_uring_op).
var ringOps = [64]ringOperation{
	1:  {"preadv", []int{ringFD, ringAddr, ringLen, ringOff}},
	2:  {"pwritev", []int{ringFD, ringAddr, ringLen, ringOff}},
	3:  {"fsync", []int{ringFD}},
	4:  {"pread64", []int{ringFD, ringAddr, ringLen, ringOff}}, // read_fixed
	5:  {"pwrite64", []int{ringFD, ringAddr, ringLen, ringOff}},
	8:  {"sync_file_range", []int{ringFD, ringOff, ringLen, ringOpFlags}},
	9:  {"sendmsg", []int{ringFD, ringAddr, ringOpFlags}},
	10: {"recvmsg", []int{ringFD, ringAddr, ringOpFlags}},
	13: {"accept4", []int{ringFD, ringAddr, ringOff, ringOpFlags}},
	16: {"connect", []int{ringFD, ringAddr, ringOff}},
	17: {"fallocate", []int{ringFD, ringLen, ringOff, ringAddr}},
	18: {"openat", []int{ringFD, ringAddr, ringOpFlags, ringLen}},
	19: {"close", []int{ringFD}},
	21: {"statx", []int{ringFD, ringAddr, ringOpFlags, ringLen, ringOff}},
	22: {"pread64", []int{ringFD, ringAddr, ringLen, ringOff}},
	23: {"pwrite64", []int{ringFD, ringAddr, ringLen, ringOff}},
	24: {"fadvise64", []int{ringFD, ringOff, ringLen, ringOpFlags}},
	25: {"madvise", []int{ringAddr, ringLen, ringOpFlags}},
	26: {"sendto", []int{ringFD, ringAddr, ringLen, ringOpFlags}},
	27: {"recvfrom", []int{ringFD, ringAddr, ringLen, ringOpFlags}},
	28: {"openat2", []int{ringFD, ringAddr, ringOff, ringLen}},
	29: {"epoll_ctl", []int{ringFD, ringLen, ringOff, ringAddr}},
	34: {"shutdown", []int{ringFD, ringLen}},
	35: {"renameat2", []int{ringFD, ringAddr, ringLen, ringOff, ringOpFlags}},
	36: {"unlinkat", []int{ringFD, ringAddr, ringOpFlags}},
	37: {"mkdirat", []int{ringFD, ringAddr, ringLen}},
	38: {"symlinkat", []int{ringAddr, ringFD, ringOff}},
	39: {"linkat", []int{ringFD, ringAddr, ringLen, ringOff, ringOpFlags}},
	45: {"socket", []int{ringFD, ringOff, ringLen}},
	48: {"sendmsg", []int{ringFD, ringAddr, ringOpFlags}}, // sendmsg_zc
	55: {"ftruncate", []int{ringFD, ringOff}},
	56: {"bind", []int{ringFD, ringAddr, ringOff}},
	57: {"listen", []int{ringFD, ringLen}},
	60: {"preadv", []int{ringFD, ringAddr, ringLen, ringOff}},  // readv_fixed
	61: {"pwritev", []int{ringFD, ringAddr, ringLen, ringOff}}, // writev_fixed
	62: {"pipe2", []int{ringAddr, ringOpFlags}},
}

var callsByName = sync.OnceValue(func() map[string]*syscall.Call {
	m := map[string]*syscall.Call{}
	for _, c := range syscall.Table(syscall.ABI64) {
		if c != nil {
			m[c.Name] = c
		}
	}
	return m
})

// call is the system call; nil: none.
func (o *ringOperation) call() *syscall.Call { return callsByName()[o.name] }

// ringFlagNames are IOSQE_…, by bit (include/uapi/linux/io_uring.h).
var ringFlagNames = [...]string{"FIXED_FILE", "IO_DRAIN", "IO_LINK", "IO_HARDLINK", "ASYNC", "BUFFER_SELECT", "CQE_SKIP_SUCCESS"}
