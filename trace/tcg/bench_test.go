package tcg

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/outsight-vmi/outsight/table"
	"github.com/outsight-vmi/outsight/trace"
	"github.com/outsight-vmi/outsight/trace/plugin"
	"github.com/outsight-vmi/outsight/trace/syscall"
)

var le = binary.LittleEndian

// fakePlugin answers as the plugin does (plugin/qemu/protocol.h), and gives the ring of one vCPU, and the program as it was sent.
func fakePlugin(tb testing.TB, a *plugin.Assembler, size uint64) (s *plugin.Stream, ring, program []byte) {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "plugin")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { l.Close() })
	mem := make(chan []byte, 1)
	go func() {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		hello := make([]byte, 16+48)
		for i, v := range []uint32{0x74737566, 1, 48, 0, 5, 2, 4, 1, 1, 7} {
			le.PutUint32(hello[4*i:], v)
		}
		copy(hello[48:], "x86_64")
		c.Write(hello)
		b, oob := make([]byte, 8<<20), make([]byte, 256)
		io.ReadFull(c, b[:16])
		want := int(le.Uint32(b[8:]))
		_, n, _, _, err := c.ReadMsgUnix(b[:1], oob)
		if err != nil {
			mem <- nil
			return
		}
		io.ReadFull(c, b[1:want])
		messages, _ := unix.ParseSocketControlMessage(oob[:n])
		fds, _ := unix.ParseUnixRights(&messages[0])
		m, err := unix.Mmap(fds[0], 0, 2*4096+int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			mem <- nil
			return
		}
		// Two moments of the clock, at one tick a nanosecond.
		le.PutUint64(m[200:], 1e9)
		le.PutUint64(m[208:], uint64(time.Now().UnixNano()))
		le.PutUint64(m[224:], le.Uint64(m[208:])-1e9)
		ready := make([]byte, 16)
		le.PutUint32(ready, 0x74737566)
		le.PutUint32(ready[4:], 3)
		program = b[:want]
		mem <- m
		c.Write(ready)
	}()
	c, err := plugin.Dial(tb.Context(), path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	s, err = c.Start(tb.Context(), a, plugin.Options{Ring: size})
	if err != nil {
		tb.Fatal(err)
	}
	ring = <-mem
	return s, ring, program
}

// emptyProgram is one probe that does nothing.
func emptyProgram() *plugin.Assembler {
	a := &plugin.Assembler{}
	a.Probe(plugin.Probe{Where: plugin.AtSyscall, Arg: plugin.Syscall, ID: idEntry})
	a.End()
	return a
}

// workload are the records of what a shell does most: entries and returns of one task.
func workload(tb testing.TB, calls []*syscall.Call) (records [][]byte) {
	number := func(name string) uint64 {
		for n, c := range calls {
			if c != nil && c.Name == name {
				return uint64(n)
			}
		}
		tb.Fatalf("no call %s", name)
		return 0
	}
	record := func(probe uint16, words []uint64, items ...string) {
		b := make([]byte, 32)
		for _, w := range words {
			b = le.AppendUint64(b, w)
		}
		for i, s := range items {
			b = le.AppendUint32(b, uint32(len(s)))
			b = append(b, byte(i), 0, 0, 0)
			b = append(b, s...)
			for len(b)%8 != 0 {
				b = append(b, 0)
			}
		}
		le.PutUint32(b, uint32(len(b)))
		le.PutUint16(b[4:], probe)
		le.PutUint32(b[24:], uint32(len(words)))
		records = append(records, b)
	}
	stamp := uint64(0)
	call := func(name string, result int64, args []uint64, entry, back []string) {
		stamp++
		head := []uint64{0xffff888001234000, 324<<32 | 324, number(name), stamp, 5e9}
		record(idEntry, append(append(head[:5:5], 0x401000), args...), entry...)
		record(idReturn, append(head[:5:5], uint64(result)), back...)
	}
	call("getppid", 1, nil, nil, nil)
	call("openat", 3, []uint64{1<<64 - 100, 0x7ffd0000, 0x80000, 0}, []string{"/etc/ld.so.cache"}, nil)
	call("close", 0, []uint64{3}, nil, nil)
	call("write", 6, []uint64{1, 0x5000, 6}, []string{"hello\n"}, nil)
	call("openat", -2, []uint64{1<<64 - 100, 0x7ffd0000, 0x80000, 0}, []string{"/etc/no-such-file"}, nil)
	call("rt_sigprocmask", 0, []uint64{0, 0, 0x7ffd1000, 8}, nil, []string{"\x00\x00\x00\x00\x00\x00\x00\x00"})
	call("getppid", 1, nil, nil, nil)
	call("lseek", 100, []uint64{3, 100, 0}, nil, nil)
	return records
}

// BenchmarkRingToJSON is a record's whole way: from a ring to a line of JSON with every column that a trace has. One
// event is an entry and a return.
func BenchmarkRingToJSON(b *testing.B) {
	benchRing(b, func(w io.Writer) (table.Encoder, error) {
		o := table.Options{}
		var err error
		if o.Columns, err = table.Select(trace.Documented(), "", table.JSON); err != nil {
			return nil, err
		}
		return table.NewEncoder(w, table.JSON, trace.Documented(), o)
	})
}

// BenchmarkRing is the same without the output.
func BenchmarkRing(b *testing.B) { benchRing(b, nil) }

func benchRing(b *testing.B, encoder func(io.Writer) (table.Encoder, error)) {
	const size = 4 << 20
	records, mem, _ := fakePlugin(b, emptyProgram(), size)
	var c compiler
	c.calls[abi64] = syscall.Table(syscall.ABI64)
	s := &Stream{o: Options{Limit: 32}, records: records, checked: time.Now().Add(time.Hour)}
	s.join.init(nil, s.o)
	s.join.calls = c.calls
	s.join.last = lastProcess{0xffff888001234000, 5e9, &trace.Process{PID: 324, PPID: 1, Comm: "sh", Exe: "/bin/sh", Parent: "init"}}
	var enc table.Encoder
	var err error
	if encoder != nil {
		if enc, err = encoder(bufio.NewWriterSize(io.Discard, 64<<10)); err != nil {
			b.Fatal(err)
		}
	}
	wanted, _ := table.Select(trace.Documented(), "", table.JSON)
	row := make(table.Row, len(trace.Columns))
	work := workload(b, c.calls[abi64])
	ring, data := mem[4096:8192], mem[8192:]
	head, sequence := uint64(0), uint64(0)
	fill := func(events int) {
		for range events {
			for range 2 {
				r := work[sequence%uint64(len(work))]
				if rest := size - head%size; rest < 128<<10 {
					le.PutUint32(data[head%size:], uint32(rest))
					le.PutUint16(data[head%size+6:], 0x8000)
					head += rest
				}
				at := data[head%size:]
				copy(at, r)
				le.PutUint64(at[8:], sequence)
				le.PutUint64(at[16:], 1e9+sequence*500)
				head += uint64(len(r))
				sequence++
			}
		}
		le.PutUint64(ring, head)
	}
	var e trace.Event
	take := func(n int) {
		for range n {
			if err := s.Next(b.Context(), &e); err != nil {
				b.Fatal(err)
			}
			if enc == nil {
				continue
			}
			trace.Fill(row, &e, wanted)
			if err := enc.Row(row); err != nil {
				b.Fatal(err)
			}
		}
	}
	fill(len(work) / 2)
	take(len(work) / 2) // warm
	b.ReportAllocs()
	b.ResetTimer()
	var spent time.Duration // of the processor: what else runs on the machine does not count
	for done := 0; done < b.N; {
		n := min(4096, b.N-done)
		b.StopTimer()
		fill(n)
		b.StartTimer()
		before := cpuTime(b)
		take(n)
		spent += cpuTime(b) - before
		done += n
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.ReportMetric(float64(b.N)/spent.Seconds(), "events/cpu-s")
}

func cpuTime(tb testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
