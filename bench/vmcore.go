package main

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// addVMCoreInfo rewrites QEMU's ELF dump with the kernel's VMCOREINFO among
// its notes. QEMU adds that note itself only for guests with a vmcoreinfo device
// and its module loaded, but drgn refuses a dump without it; and crash wants all
// notes before the memory.
func addVMCoreInfo(core, dump, raw string) error {
	info, err := findVMCoreInfo(raw)
	if err != nil {
		return err
	}
	in, err := os.Open(dump)
	if err != nil {
		return fmt.Errorf("read QEMU's dump: %w", err)
	}
	defer in.Close()
	f, err := elf.NewFile(in)
	if err != nil {
		return fmt.Errorf("read QEMU's dump: %w", err)
	}
	out, err := os.Create(core)
	if err != nil {
		return fmt.Errorf("write the core: %w", err)
	}
	defer out.Close()
	if err := writeCore(out, f, info); err != nil {
		return fmt.Errorf("write the core: %w", err)
	}
	return nil
}

const page = 4096

func writeCore(out *os.File, f *elf.File, info []byte) error {
	var notes bytes.Buffer
	var loads []*elf.Prog
	for _, p := range f.Progs {
		switch p.Type {
		case elf.PT_NOTE:
			if _, err := io.Copy(&notes, p.Open()); err != nil {
				return err
			}
		case elf.PT_LOAD:
			loads = append(loads, p)
		}
	}
	notes.Write(note("VMCOREINFO", info))

	header := elf.Header64{
		Type: uint16(elf.ET_CORE), Machine: uint16(f.Machine), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: uint16(1 + len(loads)),
	}
	copy(header.Ident[:], "\x7fELF\x02\x01\x01")
	progs := []elf.Prog64{{Type: uint32(elf.PT_NOTE), Off: 64 + 56*uint64(1+len(loads)), Filesz: uint64(notes.Len()), Memsz: uint64(notes.Len())}}
	at := roundUp(progs[0].Off + progs[0].Filesz)
	for _, p := range loads {
		progs = append(progs, elf.Prog64{Type: uint32(elf.PT_LOAD), Off: at, Vaddr: p.Vaddr, Paddr: p.Paddr, Filesz: p.Filesz, Memsz: p.Memsz})
		at = roundUp(at + p.Filesz)
	}
	for _, part := range []any{header, progs, notes.Bytes()} {
		if err := binary.Write(out, binary.LittleEndian, part); err != nil {
			return err
		}
	}
	for i, p := range loads {
		if _, err := io.Copy(io.NewOffsetWriter(out, int64(progs[i+1].Off)), p.Open()); err != nil {
			return err
		}
	}
	return nil
}

func roundUp(n uint64) uint64 { return (n + page - 1) &^ (page - 1) }

// note is an ELF note with its padding.
func note(name string, desc []byte) []byte {
	name += "\x00"
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, 0)
	pad := func() {
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	b = append(b, name...)
	pad()
	b = append(b, desc...)
	pad()
	return b
}

// findVMCoreInfo finds the text in raw memory: the longest that begins as it does.
// It reads piece by piece: Linux counts what this process ever held at once as
// memory of the processes that it starts.
func findVMCoreInfo(raw string) ([]byte, error) {
	f, err := os.Open(raw)
	if err != nil {
		return nil, fmt.Errorf("look for VMCOREINFO: %w", err)
	}
	defer f.Close()
	var best []byte
	piece := make([]byte, 1<<20+page) // pieces overlap by as much as the text can be long
	for at := int64(0); ; at += 1 << 20 {
		n, err := f.ReadAt(piece, at)
		if text := longestInfo(piece[:n]); len(text) > len(best) {
			best = bytes.Clone(text)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("look for VMCOREINFO: %w", err)
		}
	}
	if best == nil {
		return nil, errors.New("the guest's memory has no VMCOREINFO, which drgn and crash need")
	}
	return best, nil
}

func longestInfo(b []byte) (best []byte) {
	start := []byte("OSRELEASE=")
	for i := bytes.Index(b, start); i >= 0; i = bytes.Index(b, start) {
		b = b[i:]
		text, _, _ := bytes.Cut(b[:min(len(b), page)], []byte{0})
		if len(text) > len(best) && bytes.Contains(text, []byte("\nKERNELOFFSET=")) {
			best = text
		}
		b = b[len(start):]
	}
	return best
}
