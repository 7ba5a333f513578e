package main

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	shortRate  = 500 // processes a second that the churn of short processes starts, if the guest can
	shortBatch = 25  // at a time
	shortFile  = "/usr/sbin/outsight-short"
)

// shortProgram is a program that makes processes which end at once, one after the other, as a shell does with subshells,
// and ends: an ELF header, one segment that maps the file, and code.
func shortProgram() []byte {
	const base, header, segment = 0x40_0000, 64, 56
	code := []byte{
		0xbb, shortBatch - 1, 0, 0, 0, // mov $n,%ebx
		0xb8, unix.SYS_FORK, 0, 0, 0, 0x0f, 0x05, // mov $57,%eax; syscall
		0x85, 0xc0, 0x74, 0x16, // test %eax,%eax; je the end
		0xb8, unix.SYS_WAIT4, 0, 0, 0, // mov $61,%eax
		0x48, 0x83, 0xcf, 0xff, // or $-1,%rdi
		0x31, 0xf6, 0x31, 0xd2, 0x4d, 0x31, 0xd2, // xor %esi,%esi; xor %edx,%edx; xor %r10,%r10
		0x0f, 0x05, // syscall
		0xff, 0xcb, 0x75, 0xdf, // dec %ebx; jne the fork
		0xb8, unix.SYS_EXIT_GROUP, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05, // mov $231,%eax; xor %edi,%edi; syscall
	}
	le := binary.LittleEndian
	b := append([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9)...)
	b = le.AppendUint16(le.AppendUint16(b, 2), 62) // ET_EXEC, EM_X86_64
	b = le.AppendUint32(b, 1)
	b = le.AppendUint64(b, base+header+segment) // entry
	b = le.AppendUint64(b, header)              // program headers
	b = le.AppendUint64(b, 0)                   // no sections
	b = le.AppendUint32(b, 0)
	for _, v := range []uint16{header, segment, 1, 0, 0, 0} {
		b = le.AppendUint16(b, v)
	}
	b = le.AppendUint32(le.AppendUint32(b, 1), 5) // PT_LOAD, readable and executable
	size := uint64(header + segment + len(code))
	for _, v := range []uint64{0, base, base, size, size, 4096} {
		b = le.AppendUint64(b, v)
	}
	return append(b, code...)
}

// churnShort starts a batch of processes that end at once, and keeps to the rate.
func (s *server) churnShort(n int) error {
	began := time.Now()
	if n == 0 {
		if err := errors.Join(os.MkdirAll(filepath.Dir(shortFile), 0o755), os.WriteFile(shortFile, shortProgram(), 0o755)); err != nil {
			return err
		}
	}
	err := exec.Command(shortFile).Run()
	time.Sleep(shortBatch*time.Second/shortRate - time.Since(began))
	return err
}
