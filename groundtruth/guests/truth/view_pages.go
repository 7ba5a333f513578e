package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
)

func init() { views["pages"] = tellPages }

// Bits of /proc/kpageflags (include/uapi/linux/kernel-page-flags.h, and those for hackers
// of fs/proc/page.c).
const (
	kpfUptodate = 1 << 3
	kpfLRU      = 1 << 5
	kpfSlab     = 1 << 7
	kpfBuddy    = 1 << 10
	kpfAnon     = 1 << 12
	kpfSwapback = 1 << 14
	kpfHead     = 1 << 15
	kpfTail     = 1 << 16
	kpfHuge     = 1 << 17
	kpfUnevict  = 1 << 18
	kpfNoPage   = 1 << 20
	kpfOffline  = 1 << 23
	kpfTable    = 1 << 26
	kpfReserved = 1 << 32
	kpfMlocked  = 1 << 33
)

// kpfFlags are those that are told, in outsight's order.
var kpfFlags = []struct {
	bit  uint64
	name string
}{
	{kpfUptodate, "uptodate"}, {kpfLRU, "lru"}, {kpfReserved, "reserved"}, {kpfHead, "head"}, {kpfSwapback, "swapbacked"}, {kpfUnevict, "unevictable"}, {kpfMlocked, "mlocked"},
}

// tellPages reports pages that were what they are already when /tmp/kpageflags was
// written. What belongs to programs must be mapped by one that is older than its writer:
// else it comes and goes with this one. Of free blocks only the kernel knows where they
// begin, and of page tables nobody whose they are.
func tellPages(emit func(any) error) error {
	then, err := os.ReadFile("/tmp/kpageflags")
	if err != nil {
		return err
	}
	writer, err := os.ReadFile("/tmp/kpageflags.pid")
	if err != nil {
		return err
	}
	born, err := strconv.Atoi(strings.TrimSpace(string(writer)))
	if err != nil {
		return fmt.Errorf("/tmp/kpageflags.pid: %w", err)
	}
	held := map[uint64]bool{}
	if err := eachProcess(func(pid int) error {
		if pid < born {
			holds(pid, held)
		}
		return nil
	}); err != nil {
		return err
	}
	now, err := os.ReadFile("/proc/kpageflags")
	if err != nil {
		return fmt.Errorf("/proc/kpageflags: %w", err)
	}
	end, err := endOfRAM()
	if err != nil {
		return err
	}
	const sample = 7 // of the pages
	for pfn := range min(len(then)/8, len(now)/8, int(end/pageSize)) {
		flags := binary.LittleEndian.Uint64(now[8*pfn:])
		if huge := flags&kpfHuge != 0 && flags&kpfHead != 0; pfn%sample != 0 && !huge { // those are few
			continue
		}
		told := uint64(kpfSlab | kpfBuddy | kpfAnon | kpfTail | kpfHuge | kpfNoPage | kpfOffline | kpfTable)
		names := []string{}
		for _, f := range kpfFlags {
			told |= f.bit
			if flags&f.bit != 0 {
				names = append(names, f.name)
			}
		}
		use := pageUse(flags)
		if use == "" || use == "anonymous" && !held[uint64(pfn)] || flags&told != binary.LittleEndian.Uint64(then[8*pfn:])&told {
			continue
		}
		if err := emit(map[string]any{"physical": hexAddr(uint64(pfn) * pageSize), "use": use, "flags": names}); err != nil {
			return err
		}
	}
	return nil
}

// endOfRAM is the address behind the last memory. There are struct pages behind it, up to
// the end of a section.
func endOfRAM() (end uint64, err error) {
	err = lines("/proc/iomem", func(line string) error {
		var first, last uint64
		if _, err := fmt.Sscanf(line, "%x-%x : System RAM", &first, &last); err == nil {
			end = last + 1
		}
		return nil
	})
	return end, err
}

// holds notes the page frames that a process has mapped.
func holds(pid int, held map[uint64]bool) {
	pagemap, err := os.Open(fmt.Sprintf("/proc/%d/pagemap", pid))
	if err != nil {
		return // it has gone
	}
	defer pagemap.Close()
	for _, m := range mapsOf(pid) {
		const most = 1 << 35 // a reservation of a run-time system
		if m.end-m.start > most {
			continue
		}
		b := make([]byte, (m.end-m.start)/pageSize*8)
		n, _ := pagemap.ReadAt(b, int64(m.start/pageSize*8))
		for ; n >= 8; b, n = b[8:], n-8 {
			const present, frame = 1 << 63, 1<<55 - 1
			if e := binary.LittleEndian.Uint64(b); e&present != 0 {
				held[e&frame] = true
			}
		}
	}
}

// pageUse is what outsight calls it; empty where /proc/kpageflags does not show it.
func pageUse(flags uint64) string {
	switch {
	case flags&(kpfTail|kpfNoPage|kpfBuddy|kpfTable) != 0:
		return ""
	case flags&kpfHuge != 0:
		return "hugetlb"
	case flags&kpfSlab != 0:
		return "slab"
	case flags&kpfOffline != 0:
		return "offline"
	case flags&kpfReserved != 0:
		return "reserved"
	case flags&kpfAnon != 0: // kernels around 6.12 call all of them KSM too
		return "anonymous"
	case flags&kpfLRU != 0:
		return "file"
	}
	return ""
}
