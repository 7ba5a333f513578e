package qcow2

import (
	"errors"
	"fmt"
	"io"
)

const maxPiece = 4 << 10 // bytes of tables that are read at once: the L2 entries of 32 MiB with clusters of 64 KiB

// pieceSize is in how large pieces tables are read, in bytes. Tables begin where clusters do, so pieces do not cross their ends.
func (c *core) pieceSize() int64 { return min(maxPiece, c.clusterSize()) }

// size is how many bytes are kept for a key.
func (k key) size() int {
	if k.entry != 0 {
		return int(k.core.clusterSize())
	}
	return int(k.core.pieceSize())
}

// load reads what belongs to a key into p, which has its size.
func (c *core) load(k key, p []byte) ([]byte, error) {
	if k.entry != 0 {
		return p, c.decompress(p, k.entry)
	}
	n, err := c.device.ReadAt(p, k.piece)
	if err != nil && !errors.Is(err, io.EOF) {
		return p, fmt.Errorf("qcow2: read tables at %#x: %w", k.piece, err)
	}
	return p[:n], nil // what is missing is said where it is needed
}

// ReadAt reads the disk as io.ReaderAt has it.
func (i *Image) ReadAt(p []byte, offset int64) (int, error) {
	if offset < 0 {
		return 0, fmt.Errorf("qcow2: read at %d", offset)
	}
	if offset >= i.size {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	var end error
	if left := i.size - offset; int64(len(p)) > left {
		p, end = p[:left], io.EOF
	}
	for done := 0; done < len(p); {
		r, err := i.Map(offset+int64(done), int64(len(p)-done))
		if err != nil {
			return done, err
		}
		if err := i.read(p[done:done+int(r.Length)], offset+int64(done), r); err != nil {
			return done, err
		}
		done += int(r.Length)
	}
	return len(p), end
}

func (i *Image) read(p []byte, offset int64, r Run) error {
	switch r.Kind {
	case Data:
		return i.readData(p, r.Host)
	case Compressed:
		return i.readCompressed(p, offset&(i.clusterSize()-1), r.compressed)
	case Unallocated:
		return i.readBacking(p, offset)
	}
	clear(p)
	return nil
}

// readData reads clusters that are in one piece. The last one of an image may be there in part: what is missing are zeroes.
func (c *core) readData(p []byte, host int64) error {
	n, err := c.data.ReadAt(p, host)
	if n == len(p) {
		return nil
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("qcow2: read data at %#x: %w", host, err)
	}
	end := host + int64(n)
	if n == 0 {
		end = min(host, c.data.Size())
	}
	if last := (host + int64(len(p)) - 1) &^ (c.clusterSize() - 1); last >= end {
		return broken(last, "a cluster beyond the end of the image, which was cut off")
	}
	clear(p[n:])
	return nil
}

// readBacking reads from the backing file, beyond whose end are zeroes.
func (i *Image) readBacking(p []byte, offset int64) error {
	n := 0
	if i.backing != nil && offset < i.backing.Size() {
		var err error
		n, err = i.backing.ReadAt(p[:min(int64(len(p)), i.backing.Size()-offset)], offset)
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("qcow2: backing file: %w", err)
		}
	}
	clear(p[n:])
	return nil
}

// readCompressed reads from a place in a cluster on. Whole clusters are not kept: who reads on needs them once.
func (i *Image) readCompressed(p []byte, in int64, entry uint64) error {
	if int64(len(p)) == i.clusterSize() {
		return i.decompress(p, entry)
	}
	e, err := i.cache.get(key{i.core, 0, entry})
	if err != nil {
		return err
	}
	copy(p, e.data[in:])
	i.cache.put(e)
	return nil
}
