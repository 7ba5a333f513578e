package file

import (
	"fmt"
	"io"
)

// section is the rest of a source from an offset on.
type section struct {
	*io.SectionReader
	src Source
}

// Rest is what src has from offset off on, as a Source that takes src over.
func Rest(src Source, off uint64) (Source, error) {
	if off >= src.Size() {
		return nil, fmt.Errorf("nothing is at offset %#x: the file was cut off", off)
	}
	return section{io.NewSectionReader(src, int64(off), int64(src.Size()-off)), src}, nil
}

// Size implements [Source].
func (s section) Size() uint64 { return uint64(s.SectionReader.Size()) }

// Close implements [Source].
func (s section) Close() error { return s.src.Close() }
