// Planter loads BPF programs by bpf(2) as package plant has a kernel do it from outside, and attaches them, so that what
// they write can be tested without planting. It gets them as JSON on its standard input, prints READY, and holds them
// until it is killed.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// load is plant.Load, with the identifier of the type that each program is for.
type load struct {
	Ring struct {
		Name           string
		Elements, Size uint32
	}
	Programs []struct {
		Name, Tracepoint, Function string
		Return                     bool
		Type                       uint32
		Code                       []byte
	}
	Tables int
}

const (
	mapCreate, mapUpdateElem, progLoad, rawTracepointOpen, mapFreeze = 0, 2, 5, 17, 22

	array, progArray, mmapable       = 2, 3, 0x400
	tracing, rawBTF, onEntry, onExit = 26, 23, 24, 25
	attributes                       = 128
	verifierLog                      = 16 << 20
	notable                          = 512 // bytes: what the verifier says of smaller programs is not of interest
)

type attr [attributes / 8]uint64

func (a *attr) word(off int, v uint32) {
	*(*uint32)(unsafe.Add(unsafe.Pointer(a), off)) = v
}

func (a *attr) pointer(off int, p unsafe.Pointer) {
	*(*uint64)(unsafe.Add(unsafe.Pointer(a), off)) = uint64(uintptr(p))
}

func (a *attr) name(off int, name string) {
	copy(unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(a), off)), 15), name)
}

func bpf(cmd uintptr, a *attr, size uintptr) (int, error) {
	for {
		fd, _, e := unix.Syscall(unix.SYS_BPF, cmd, uintptr(unsafe.Pointer(a)), size)
		switch e {
		case 0:
			return int(fd), nil
		case unix.EAGAIN: // the verifier stops for signals, which Go's runtime sends to itself
		default:
			return -1, e
		}
	}
}

func run() error {
	var l load
	if err := json.NewDecoder(os.Stdin).Decode(&l); err != nil {
		return err
	}
	var m attr
	for i, v := range []uint32{array, 4, l.Ring.Size, l.Ring.Elements, mmapable} {
		m.word(4*i, v)
	}
	m.name(28, l.Ring.Name)
	ring, err := bpf(mapCreate, &m, 72)
	if err != nil {
		return fmt.Errorf("create the map: %w", err)
	}
	// From now on only programs write into it.
	if _, err := bpf(mapFreeze, &attr{uint64(uint32(ring))}, 4); err != nil {
		return fmt.Errorf("freeze the map: %w", err)
	}
	fds := []int32{int32(ring)}
	for range l.Tables {
		var m attr
		for i, v := range []uint32{progArray, 4, 4, 1} {
			m.word(4*i, v)
		}
		fd, err := bpf(mapCreate, &m, 72)
		if err != nil {
			return fmt.Errorf("create a table: %w", err)
		}
		fds = append(fds, int32(fd))
	}
	licence := []byte("GPL\x00")
	var text []byte
	for i, p := range l.Programs {
		began := time.Now()
		var a attr
		a.word(0, tracing)
		a.word(4, uint32(len(p.Code)/8))
		a.pointer(8, unsafe.Pointer(&p.Code[0]))
		a.pointer(16, unsafe.Pointer(&licence[0]))
		a.name(48, p.Name)
		switch {
		case p.Function == "":
			a.word(68, rawBTF)
		case p.Return:
			a.word(68, onExit)
		default:
			a.word(68, onEntry)
		}
		a.word(108, p.Type)
		a.pointer(120, unsafe.Pointer(&fds[0]))
		fd, err := bpf(progLoad, &a, attributes)
		took := time.Since(began)
		log := ""
		if err != nil || os.Getenv("VERBOSE") != "" && len(p.Code) >= notable {
			if text == nil {
				text = make([]byte, verifierLog)
			}
			text[0] = 0
			a.word(24, 4) // what the verifier has counted
			if err != nil {
				a.word(24, 1)
			}
			a.word(28, verifierLog)
			a.pointer(32, unsafe.Pointer(&text[0]))
			again, _ := bpf(progLoad, &a, attributes)
			if again >= 0 {
				unix.Close(again)
			}
			log = unix.ByteSliceToString(text)
			if len(log) > 6000 {
				log = log[len(log)-6000:]
			}
		}
		if err != nil {
			return fmt.Errorf("load %s: %w\n%s", p.Name, err, log)
		}
		if i < l.Tables {
			key, value := uint32(0), uint32(fd)
			u := attr{uint64(uint32(fds[1+i]))}
			u.pointer(8, unsafe.Pointer(&key))
			u.pointer(16, unsafe.Pointer(&value))
			if _, err := bpf(mapUpdateElem, &u, 32); err != nil {
				return fmt.Errorf("put %s into its table: %w", p.Name, err)
			}
		}
		fmt.Printf("%s: %d instructions, verified in %v %s\n", p.Name, len(p.Code)/8, took.Round(time.Millisecond), log)
		if i < l.Tables {
			continue
		}
		var t attr
		t.word(8, uint32(fd))
		if _, err := bpf(rawTracepointOpen, &t, 16); err != nil {
			return fmt.Errorf("attach %s to %s%s: %w", p.Name, p.Tracepoint, p.Function, err)
		}
	}
	return nil
}

func main() {
	if err := run(); err != nil {
		fmt.Println("FAILED", err)
		os.Exit(1)
	}
	fmt.Println("READY")
	for {
		time.Sleep(time.Hour)
	}
}
