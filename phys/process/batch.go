package process

import (
	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/phys"
)

// batchMax is how many reads one process_vm_readv does; the kernel keeps up to
// 8 vectors on its stack and takes at most 1024.
const batchMax = 256

// ReadBatch implements [phys.Batcher] with one process_vm_readv for up to 256
// reads. Reads that it could not do are tried again one by one, which is also
// what tells a process that is gone from one that reuses its pid.
func (m *Memory) ReadBatch(reads []phys.Read) (first error) {
	for len(reads) > 0 {
		n := min(len(reads), batchMax)
		if err := m.batch(reads[:n]); err != nil && first == nil {
			first = err
		}
		reads = reads[n:]
	}
	return first
}

func (m *Memory) batch(reads []phys.Read) (first error) {
	var (
		local  [batchMax]unix.Iovec
		remote [batchMax]unix.RemoteIovec
		want   int
		n      int
	)
	// A read that crosses pieces, or hits none, ends the run that one call does.
	for n < len(reads) {
		r := &reads[n]
		s := m.find(r.Addr)
		if len(r.P) == 0 || s == nil || !s.Contains(r.Addr, uint64(len(r.P))) {
			break
		}
		local[n].Base = &r.P[0]
		local[n].SetLen(len(r.P))
		remote[n] = unix.RemoteIovec{Base: uintptr(s.hva + uint64(r.Addr-s.Start)), Len: len(r.P)}
		want += len(r.P)
		n++
	}
	done := 0
	if n > 0 && m.alive() {
		got, err := unix.ProcessVMReadv(m.pid, local[:n], remote[:n], 0)
		// Asked again afterwards: only then was it this process all along.
		if err == nil && m.alive() {
			for done < n && got >= len(reads[done].P) {
				got -= len(reads[done].P)
				reads[done].Err = nil
				done++
			}
		}
	}
	for i := done; i < len(reads); i++ {
		_, err := m.ReadAt(reads[i].P, reads[i].Addr)
		if reads[i].Err = err; err != nil && first == nil {
			first = err
		}
	}
	return first
}
