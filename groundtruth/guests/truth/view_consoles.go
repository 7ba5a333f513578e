package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/text/encoding/charmap"
)

func init() { views["consoles"] = tellConsoles }

// tellConsoles reports the virtual consoles' text by /dev/vcsaN: lines, columns, where
// the cursor is, and two bytes for each cell.
func tellConsoles(emit func(any) error) error {
	names, err := filepath.Glob("/dev/vcsa[1-9]*")
	if err != nil {
		return err
	}
	active, err := os.ReadFile("/sys/class/tty/tty0/active")
	if err != nil {
		return err
	}
	for _, name := range names {
		n, err := strconv.Atoi(strings.TrimPrefix(name, "/dev/vcsa"))
		if err != nil {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		tty := fmt.Sprintf("tty%d", n)
		mode, err := consoleMode("/dev/" + tty)
		if err != nil {
			return err
		}
		const header = 4
		if len(b) < header || len(b) < header+2*int(b[0])*int(b[1]) {
			return fmt.Errorf("%s: %d bytes", name, len(b))
		}
		for line := range int(b[0]) {
			var text []rune
			for i := range int(b[1]) {
				c := b[header+2*(line*int(b[1])+i)]
				if c < 32 {
					c = ' '
				}
				text = append(text, charmap.CodePage437.DecodeByte(c))
			}
			s := strings.TrimRight(string(text), " ")
			if s == "" {
				continue
			}
			row := map[string]any{
				"console": tty, "line": line + 1, "text": s,
				"shown": tty == strings.TrimSpace(string(active)), "graphics": mode != 0,
			}
			if err := emit(row); err != nil {
				return err
			}
		}
	}
	return nil
}

// consoleMode is KD_TEXT (0) or KD_GRAPHICS.
func consoleMode(name string) (int, error) {
	const getMode = 0x4b3b // KDGETMODE
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	mode, err := unix.IoctlGetInt(int(f.Fd()), getMode)
	if err != nil {
		return 0, fmt.Errorf("%s: KDGETMODE: %w", name, err)
	}
	return mode, nil
}
