package device

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"golang.org/x/text/encoding/charmap"

	"github.com/outsight-vmi/outsight/linux"
	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

// ConsoleLine is a line of text on a virtual console.
type ConsoleLine struct {
	Console  int  // N of /dev/ttyN
	Shown    bool // it is the one that the screen shows
	Graphics bool // what the screen shows is drawn by a program instead (KD_GRAPHICS)
	Line     int  // from 1 on, at the top
	// Text is without blanks at its end; the character set is that of the IBM PC, as fonts
	// of the console mostly have it.
	Text string
	Addr virt.Addr // of its first cell
}

type consoleLayout struct {
	data                          kobj.Field // struct vc
	columns, rows, perRow, origin kobj.Field // struct vc_data
	buffer, mode, highFont        kobj.Field
	size                          uint32 // of struct vc
}

func consoleLayoutOf(s *linux.System) (*consoleLayout, error) {
	return kobj.LayoutOf(s.Walker, "consoles", func(r *kobj.Resolver, o *consoleLayout) {
		r.Prefetch("vc_cons", "fg_console")
		const t = "vc_data"
		o.data, o.size = r.Field("vc", "d"), r.Size("vc")
		o.columns, o.rows, o.perRow = r.Field(t, "vc_cols"), r.Field(t, "vc_rows"), r.Field(t, "vc_size_row")
		o.origin, o.buffer = r.Field(t, "vc_origin"), r.Field(t, "vc_screenbuf")
		o.mode, o.highFont = r.Field(t, "vc_mode"), r.Field(t, "vc_hi_font_mask")
	})
}

const (
	maxConsoles    = 63 // MAX_NR_CONSOLES
	maxConsoleRow  = 1 << 12
	maxConsoleText = 4 << 20 // bytes, of all consoles; one has some kilobytes
)

// ConsoleLines yields the lines with text on the virtual consoles, by console and line. The
// text of the one that VGA's text mode shows is in the card's memory: that is an error
// ([phys.ErrNotPresent]).
func ConsoleLines(ctx context.Context, s *linux.System) iter.Seq2[*ConsoleLine, error] {
	return func(yield func(*ConsoleLine, error) bool) {
		o, err := consoleLayoutOf(s)
		if err != nil {
			yield(nil, err)
			return
		}
		table, err := s.SymbolAddr("vc_cons")
		if err != nil {
			yield(nil, fmt.Errorf("consoles: %w: %w", kobj.ErrUnsupported, err)) // without CONFIG_VT
			return
		}
		foreground := -1
		if a, ok := s.Address("fg_console"); ok {
			if v, err := s.Word(a); err == nil {
				foreground = int(int32(v))
			}
		}
		left := maxConsoleText
		for n := range maxConsoles {
			vc, err := s.Word(o.data.At(table + virt.Addr(n*int(o.size))))
			if err == nil && vc == 0 {
				continue
			}
			var lines []*ConsoleLine
			if err == nil {
				lines, err = consoleLines(s, o, virt.Addr(vc), ConsoleLine{Console: n + 1, Shown: n == foreground}, &left)
			}
			for _, l := range lines {
				if !yield(l, nil) {
					return
				}
			}
			if ctx.Err() != nil {
				err = ctx.Err()
			}
			if err != nil && !yield(nil, fmt.Errorf("console tty%d: %w", n+1, err)) || ctx.Err() != nil {
				return
			}
		}
	}
}

// consoleLines gives the lines of one console, also with an error: those that could be read.
// common is what is the same in all, left how much may still be read.
func consoleLines(s *linux.System, o *consoleLayout, vc virt.Addr, common ConsoleLine, left *int) (lines []*ConsoleLine, err error) {
	r := s.Reader()
	rows, columns := r.Uint(vc, o.rows), r.Uint(vc, o.columns)
	perRow, high := r.Uint(vc, o.perRow), r.Uint(vc, o.highFont)
	common.Graphics = r.Uint(vc, o.mode) != 0
	origin := r.Pointer(vc, o.origin)
	if common.Graphics { // the text that it had is kept there
		origin = r.Pointer(vc, o.buffer)
	}
	if r.Err != nil {
		return nil, r.Err
	}
	if columns == 0 || columns > maxConsoleRow || rows > maxConsoleRow || perRow < 2*columns || perRow > 2*maxConsoleRow {
		return nil, fmt.Errorf("%w: %d lines of %d cells in %d bytes", kobj.ErrBroken, rows, columns, perRow)
	}
	if *left -= int(rows * perRow); *left < 0 {
		return nil, kobj.ErrBudget
	}
	cells := make([]byte, 2*columns)
	for i := range rows {
		at := origin + virt.Addr(i*perRow)
		if e := s.ReadAt(cells, at); e != nil {
			if err == nil {
				err = fmt.Errorf("line %d: %w", i+1, e)
			}
			continue
		}
		text := consoleText(cells, uint16(high))
		if text == "" {
			continue
		}
		l := common
		l.Line, l.Text, l.Addr = int(i)+1, text, at
		lines = append(lines, &l)
	}
	return lines, err
}

// consoleText is what cells of 16 bits show: a glyph and its colours. high is the bit that
// chooses the second half of a font of 512.
func consoleText(cells []byte, high uint16) string {
	var b []byte
	for ; len(cells) >= 2; cells = cells[2:] {
		c := binary.LittleEndian.Uint16(cells)
		glyph := byte(c)
		if c&high != 0 {
			glyph = '?'
		}
		if glyph < 32 {
			glyph = ' ' // arrows, faces and notes in the fonts, and nothing in a line's text
		}
		b = append(b, string(charmap.CodePage437.DecodeByte(glyph))...)
	}
	for len(b) > 0 && b[len(b)-1] == ' ' {
		b = b[:len(b)-1]
	}
	return string(b)
}
