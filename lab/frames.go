package lab

import (
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The agent speaks in lines "OLAB kind argument". The lines "out N" and "err N" are
// followed by N bytes of a command's output, "out.gz N" and "err.gz N" by N bytes of gzip.
// Everything else on the line is noise: the end of what was said to a host that died.
//
//	boot           the agent has just started
//	sync NONCE     ready for a new command; the former one is stopped and forgotten
//	put N          N bytes of input were taken
//	out N, err N   output
//	alive          the command is still running
//	exit STATUS    the command has ended; nothing follows
type frame struct {
	kind string
	arg  string
	size int64 // of the data that follows, for out and err
	gzip bool
}

const maxLine = 4096

// readFrame reads on to the next frame; noise is skipped.
func readFrame(r *bufio.Reader) (frame, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return frame{}, err
		}
		// Noise without a line break may come right before a frame.
		i := strings.LastIndex(line, "OLAB ")
		if i < 0 {
			continue
		}
		kind, arg, _ := strings.Cut(strings.TrimRight(line[i+len("OLAB "):], "\r"), " ")
		f := frame{arg: arg}
		f.kind, f.gzip = strings.CutSuffix(kind, ".gz")
		switch f.kind {
		case "boot", "sync", "put", "alive":
		case "exit":
			if _, err := strconv.ParseUint(arg, 10, 8); err != nil {
				continue
			}
		case "out", "err":
			n, err := strconv.ParseUint(arg, 10, 31)
			if err != nil {
				continue
			}
			f.size = int64(n)
		default:
			continue
		}
		return f, nil
	}
}

// readLine reads a line without its end; of an overlong one it gives the last part, so
// that noise costs no memory.
func readLine(r *bufio.Reader) (string, error) {
	for {
		part, err := r.ReadSlice('\n')
		switch {
		case err == nil:
			return string(part[:len(part)-1]), nil
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		default:
			return "", err
		}
	}
}

// copyData passes the data of a frame on. When w fails, the data is read all the same, to
// keep in step, and the error is given back.
func copyData(w io.Writer, r io.Reader, f frame) (wrote, read error) {
	if w == nil {
		w = io.Discard
	}
	data := &io.LimitedReader{R: r, N: f.size}
	t := &tolerantWriter{w: w}
	var damage error
	if f.gzip {
		var z *gzip.Reader
		if z, damage = gzip.NewReader(data); damage == nil {
			_, damage = io.Copy(t, z)
		}
	} else {
		_, damage = io.Copy(t, data)
	}
	if _, err := io.Copy(io.Discard, data); err != nil {
		return t.err, fmt.Errorf("in the midst of %d bytes of output: %w", f.size, err)
	}
	if data.N > 0 {
		return t.err, fmt.Errorf("in the midst of %d bytes of output: %w", f.size, io.ErrUnexpectedEOF)
	}
	if t.err == nil && damage != nil {
		return fmt.Errorf("output is damaged: %w", damage), nil
	}
	return t.err, nil
}

// A tolerantWriter swallows what comes after the first error.
type tolerantWriter struct {
	w   io.Writer
	err error
}

func (t *tolerantWriter) Write(p []byte) (int, error) {
	if t.err == nil {
		_, t.err = t.w.Write(p)
	}
	return len(p), nil
}
