package syscall_test

import (
	"fmt"

	"github.com/outsight-vmi/outsight/trace/syscall"
)

// What strace would write of a call of which registers and memory are known.
func ExampleCall_AppendArgs() {
	openat := syscall.Table(syscall.ABI64)[257]
	for tag, p := range openat.Pieces {
		fmt.Printf("piece %d: argument %d, at most %d bytes\n", tag, p.Arg, p.Limit)
	}
	at := -100 // AT_FDCWD
	v := syscall.Values{
		Args:     [6]uint64{uint64(at), 0x7ffc12345678, 0o2000000},
		Data:     []syscall.Data{{Tag: 0, Bytes: []byte("/etc/shadow")}},
		Returned: true,
		Result:   -13,
	}
	fmt.Printf("%s(%s) = %s\n", openat.Name, openat.AppendArgs(nil, &v, syscall.Options{}), openat.AppendResult(nil, &v))
	fmt.Printf("%q\n", openat.Fields(&v))
	// Output:
	// piece 0: argument 1, at most 4096 bytes
	// openat(AT_FDCWD, "/etc/shadow", O_RDONLY|O_CLOEXEC) = -1 EACCES (Permission denied)
	// ["dirfd=AT_FDCWD" "pathname=\"/etc/shadow\"" "flags=O_RDONLY|O_CLOEXEC"]
}

// A system call that is newer than this program.
func ExampleFromSignature() {
	c := syscall.FromSignature(999, syscall.Signature{
		Name:  "open_sesame",
		Types: []string{"int", "const char *", "unsigned int"},
		Args:  []string{"dfd", "filename", "flags"},
	})
	v := syscall.Values{
		Args: [6]uint64{3, 0x1000, 0x80},
		Data: []syscall.Data{{Tag: 0, Bytes: []byte("cave")}},
	}
	fmt.Printf("%s(%s)\n", c.Name, c.AppendArgs(nil, &v, syscall.Options{}))
	// Output:
	// open_sesame(3, "cave", 0x80)
}
