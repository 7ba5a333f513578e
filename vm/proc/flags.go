package proc

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// maxSmaps bounds what is read of smaps: some 700 bytes for each of 65530 maps.
const maxSmaps = 64 << 20

// Flags are the kernel's flags of mappings (VmFlags in /proc/PID/smaps), as two-letter
// words with spaces around, by the address where the mapping begins.
type Flags map[uint64]string

// Has reports whether the mapping that begins at start has flag: "nr", "dd".
func (f Flags) Has(start uint64, flag string) bool { return strings.Contains(f[start], " "+flag+" ") }

// MapFlags reads the flags of the mappings of process pid. It makes the kernel look at
// every page of the process, which takes some 50 ms for 8 GiB.
func MapFlags(pid int) (Flags, error) {
	f, err := os.Open(path(pid, "smaps"))
	if err != nil {
		return nil, fmt.Errorf("process %d: %w", pid, gone(err))
	}
	defer f.Close()
	flags, err := parseSmaps(io.LimitReader(f, maxSmaps))
	if err != nil {
		return flags, fmt.Errorf("process %d: smaps: %w", pid, err)
	}
	return flags, nil
}

// parseSmaps takes the flags out of smaps: a line as in maps, then lines "Name: value",
// the last of which is "VmFlags: rd wr mr mw me nr dd ".
func parseSmaps(r io.Reader) (Flags, error) {
	flags := Flags{}
	var at Map
	var in bool
	scan := bufio.NewScanner(r)
	for scan.Scan() {
		line := scan.Text()
		if words, ok := strings.CutPrefix(line, "VmFlags:"); ok {
			if in {
				flags[at.Start] = " " + strings.TrimSpace(words) + " "
			}
			in = false
			continue
		}
		if name, _, _ := strings.Cut(line, " "); strings.HasSuffix(name, ":") {
			continue
		}
		m, err := parseMap(line)
		if err != nil {
			return flags, fmt.Errorf("line %q: %w", line, err)
		}
		at, in = m, true
	}
	return flags, scan.Err()
}
