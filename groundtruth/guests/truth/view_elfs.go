package main

import (
	"debug/elf"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func init() {
	views["elfs"] = func(emit func(any) error) error {
		return eachProcess(func(pid int) error { return tellELFs(pid, emit) })
	}
}

const pageSize = 4096

// processMemory is the memory of a process, of which only what is in place is read: to
// look at the rest would put it there. That is done where the kernel does not say what is in
// place: without CONFIG_PROC_PAGE_MONITOR there is no pagemap.
type processMemory struct {
	mem, pagemap *os.File
}

// openMemory opens the memory of a process.
func openMemory(pid int) (p processMemory, err error) {
	if p.pagemap, err = os.Open(fmt.Sprintf("/proc/%d/pagemap", pid)); err != nil && hasPagemap() {
		return p, err
	}
	if p.mem, err = os.Open(fmt.Sprintf("/proc/%d/mem", pid)); err != nil {
		_ = p.pagemap.Close() // also if there is none
	}
	return p, err
}

func hasPagemap() bool {
	_, err := os.Stat("/proc/self/pagemap")
	return err == nil
}

func (p processMemory) close() { _, _ = p.mem.Close(), p.pagemap.Close() }

// present reports which pages of a range are in place.
func (p processMemory) present(start, end uint64) []bool {
	in := make([]bool, (end-start)/pageSize)
	if p.pagemap == nil {
		for i := range in {
			in[i] = true
		}
		return in
	}
	b := make([]byte, 8*len(in))
	n, _ := p.pagemap.ReadAt(b, int64(start/pageSize*8))
	for i := range n / 8 {
		in[i] = binary.LittleEndian.Uint64(b[8*i:])>>63 != 0
	}
	return in
}

// tellELFs reports the pages of a process that begin as an ELF file does, and the
// files with code that it has mapped.
func tellELFs(pid int, emit func(any) error) error {
	p, err := openMemory(pid)
	if err != nil {
		return nil // it has gone
	}
	defer p.close()
	areas := mapsOf(pid)
	rows := map[uint64]map[string]any{}
	for _, m := range areas {
		const most = 1 << 35 // a reservation of a run-time system
		if m.end-m.start > most {
			continue
		}
		for i, in := range p.present(m.start, m.end) {
			at := m.start + uint64(i)*pageSize
			var b [64]byte
			if !in {
				continue
			}
			if _, err := p.mem.ReadAt(b[:], int64(at)); err != nil || string(b[:4]) != elf.ELFMAG {
				continue
			}
			if b[16]|b[17] == 0 {
				continue // four bytes that a program compares others with
			}
			rows[at] = elfRow(pid, at, m)
			p.header(rows[at], b[:], at, areas)
		}
	}
	for _, i := range imagesOf(pid) {
		row := rows[i.start]
		if row == nil {
			if p.present(i.start, i.start+pageSize)[0] {
				continue // it is not an ELF file
			}
			row = elfRow(pid, i.start, i)
			row["type"], row["machine"], row["entry"], row["build_id"], row["class"] = nil, nil, nil, nil, nil
			rows[i.start] = row
			if b := cachedBytes(pid, i.start, 64, areas); len(b) == 64 {
				if string(b[:4]) != elf.ELFMAG {
					delete(rows, i.start)
					continue
				}
				p.header(row, b, i.start, areas)
			}
		}
		row["end"] = hexAddr(i.end)
	}
	for _, at := range slices.Sorted(maps.Keys(rows)) {
		if err := emit(rows[at]); err != nil {
			return err
		}
	}
	return nil
}

func elfRow(pid int, at uint64, m mapped) map[string]any {
	row := map[string]any{"pid": pid, "start": hexAddr(at), "end": hexAddr(m.end), "backed": m.file, "path": nil, "deleted": nil}
	if m.path != "" {
		row["path"] = procsText(m.path)
	}
	if m.file {
		row["deleted"] = m.deleted
	}
	return row
}

// header adds what the header reports.
func (p processMemory) header(row map[string]any, b []byte, at uint64, areas []mapped) {
	h := elf.Header64{Type: binary.LittleEndian.Uint16(b[16:]), Machine: binary.LittleEndian.Uint16(b[18:]), Entry: binary.LittleEndian.Uint64(b[24:])}
	if elf.Class(b[elf.EI_CLASS]) != elf.ELFCLASS64 {
		return
	}
	row["class"] = 64
	row["type"] = strings.TrimPrefix(elf.Type(h.Type).String(), "ET_")
	row["machine"] = strings.TrimPrefix(elf.Machine(h.Machine).String(), "EM_")
	row["entry"] = hexAddr(h.Entry)
	if row["backed"] == false {
		return
	}
	// The notes are looked up in the file, by its sections, but told only if their page
	// is in place, or in the page cache.
	f, err := elf.Open(fmt.Sprintf("/proc/%d/root%s", row["pid"], row["path"]))
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }()
	section := f.Section(".note.gnu.build-id")
	if section == nil {
		row["build_id"] = nil
		return
	}
	note, err := section.Data()
	first := ^uint64(0)
	for _, s := range f.Progs {
		if s.Type == elf.PT_LOAD {
			first = min(first, s.Vaddr&^(pageSize-1))
		}
	}
	where := (at + section.Addr - first) &^ (pageSize - 1)
	if err != nil || len(note) < 16 || len(f.Progs) > 60 {
		return
	}
	row["build_id"] = nil
	if p.present(where, where+pageSize)[0] || len(cachedBytes(row["pid"].(int), where, 1, areas)) > 0 {
		row["build_id"] = fmt.Sprintf("%x", note[16:])
	}
}

// cachedBytes are n bytes of a mapped file, if the page cache has them: to read them in
// any other way would put them there.
func cachedBytes(pid int, at uint64, n int, areas []mapped) []byte {
	for _, m := range areas {
		if !m.file || at < m.start || m.end <= at {
			continue
		}
		f, err := os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", pid, m.start, m.end))
		if err != nil {
			return nil
		}
		defer func() { _ = f.Close() }()
		b := make([]byte, n)
		n, err := unix.Preadv2(int(f.Fd()), [][]byte{b}, int64(m.offset+at-m.start), unix.RWF_NOWAIT)
		if err != nil {
			return nil
		}
		return b[:n]
	}
	return nil
}
