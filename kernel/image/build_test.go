package image_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/outsight-vmi/outsight/kernel/image"
	"github.com/outsight-vmi/outsight/linux/synth"
)

// Where the parts of a small kernel are linked.
const (
	textAt   = image.LinkText
	rodataAt = textAt + 0x20_0000
	dataAt   = textAt + 0x40_0000
	initAt   = textAt + 0x60_0000 // tables
	replAt   = textAt + 0x70_0000
)

// piece is a section of a small kernel.
type piece struct {
	name  string
	addr  uint64
	flags uint64
	data  []byte
}

var le = binary.LittleEndian

// distance is what a 32-bit entry at from says to lead to to.
func distance(from, to uint64) []byte { return le.AppendUint32(nil, uint32(to-from)) }

// smallKernel is a kernel with a patch site of every kind, and what moves in it.
type smallKernel struct {
	pieces                []piece
	words, inverse, longs []uint32
	inverseList           bool
	altSize               int
}

func newSmallKernel() *smallKernel {
	k := &smallKernel{inverseList: true, altSize: 14}
	text := bytes.Repeat([]byte{0x90}, 0x3000)
	copy(text[0x100:], []byte{0xe9, 0, 0, 0, 0})                                      // return site
	copy(text[0x200:], []byte{0x0f, 0xae, 0xe8, 0x90, 0x90})                          // alternative
	copy(text[0x300:], []byte{0xf0, 0xff, 0x00})                                      // lock
	copy(text[0x400:], []byte{0xf3, 0x0f, 0x1e, 0xfa})                                // endbr64
	copy(text[0x500:], []byte{0xeb, 0x0e})                                            // jump label of two bytes
	copy(text[0x510:], []byte{0x0f, 0x1f, 0x44, 0, 0})                                // its target, itself a long one
	copy(text[0x600:], append([]byte{0xe8}, distance(textAt+0x605, textAt+0x700)...)) // static call of the trampoline
	copy(text[0x700:], []byte{0xe9, 0, 0, 0, 0, 0x0f, 0xb9, 0xcc})
	copy(text[0x708:], []byte{0xc3, 0xcc, 0xcc, 0xcc, 0xcc, 0x0f, 0xb9, 0xcc}) // of a static call that nothing calls
	copy(text[0x800:], []byte{0x48, 0xb8, 0xef, 0xcd, 0xab, 0x89, 0x67, 0x45, 0x23, 0x01})
	copy(text[0x900:], []byte{0x2e, 0xe8, 0, 0, 0, 0}) // retpoline
	le.PutUint32(text[0xffe:], 0x81000010)             // a word that moves, over the end of a page
	le.PutUint32(text[0x1100:], 0x1000)                // an inverse one
	le.PutUint64(text[0x1ffc:], textAt+0x20)           // a long one

	symbols := []synth.Symbol{
		{Name: "_text", Type: 'T'},
		{Name: "__static_call_text_start", Type: 'T', Rel: 0x700},
		{Name: "__SCT__a", Type: 't', Rel: 0x700},
		{Name: "__SCT__b", Type: 't', Rel: 0x708},
		{Name: "__static_call_text_end", Type: 'T', Rel: 0x710},
	}
	for i := range 4000 {
		symbols = append(symbols, synth.Symbol{Name: fmt.Sprintf("do_something_%d", i), Type: 't', Rel: int64(0x3000 + 16*i)})
	}
	const data = 0x40_0000
	for i, name := range []string{"__SCK__a", "__SCK__b", "__start___jump_table", "__stop___jump_table", "__start_mcount_loc", "__stop_mcount_loc", "__start_static_call_sites", "__stop_static_call_sites"} {
		symbols = append(symbols, synth.Symbol{Name: name, Type: 'D', Rel: data + []int64{0, 16, 64, 96, 96, 104, 104, 112}[i]})
	}
	rodata := append(make([]byte, 64), synth.Kallsyms(synth.Place, symbols, rodataAt-textAt+64, 0)...)

	d := make([]byte, 128)
	jump := func(at int, code, target, key uint64) {
		copy(d[at:], distance(dataAt+uint64(at), code))
		copy(d[at+4:], distance(dataAt+uint64(at)+4, target))
		le.PutUint64(d[at+8:], key-(dataAt+uint64(at)+8))
	}
	jump(64, textAt+0x500, textAt+0x510, dataAt+32)
	jump(80, textAt+0x510, textAt+0x500, dataAt+32|1)
	le.PutUint64(d[96:], textAt+0x1000)
	copy(d[104:], distance(dataAt+104, textAt+0x600))
	copy(d[108:], distance(dataAt+108, dataAt|1))

	k.pieces = []piece{
		{".text", textAt, 6, text},
		{".rodata", rodataAt, 2, rodata},
		{".notes", rodataAt + 0x10_0000, 2, append(le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, 4), 4), 3), "GNU\x00\x12\x34\x56\x78"...)},
		{".data", dataAt, 3, d},
		{".return_sites", initAt, 2, distance(initAt, textAt+0x100)},
		{".smp_locks", initAt + 0x100, 2, append(distance(initAt+0x100, textAt+0x300), 0, 0, 0, 0)},
		{".ibt_endbr_seal", initAt + 0x200, 2, distance(initAt+0x200, textAt+0x400)},
		{".retpoline_sites", initAt + 0x300, 2, distance(initAt+0x300, textAt+0x900)},
		{"runtime_ptr_table", initAt + 0x400, 2, distance(initAt+0x400, textAt+0x802)},
		{".altinstr_replacement", replAt, 6, []byte{0x90, 0x0f, 0x01, 0xca}},
	}
	k.words, k.inverse, k.longs = []uint32{0x81000ffe}, []uint32{0x81001100}, []uint32{0x81001ffc}
	return k
}

// alternatives gives the kernel its .altinstructions, in the form of entries of that size.
func (k *smallKernel) alternatives() piece {
	const at = initAt + 0x500
	e := append(distance(at, textAt+0x200), distance(at+4, replAt+1)...)
	switch k.altSize {
	case 12:
		e = append(le.AppendUint16(e, 0x8000|9*32+20), 5, 3)
	case 13:
		e = append(le.AppendUint16(e, 0x8000|9*32+20), 5, 3, 2)
	default:
		e = append(le.AppendUint16(le.AppendUint16(e, 9*32+20), 1), 5, 3)
	}
	return piece{".altinstructions", at, 2, e}
}

// elf is the kernel as an ELF file.
func (k *smallKernel) elf() []byte {
	pieces := append(k.pieces, k.alternatives())
	b := make([]byte, 64)
	type header struct{ name, off int }
	var headers []header
	names := []byte{0}
	for _, p := range pieces {
		headers = append(headers, header{len(names), len(b)})
		names = append(append(names, p.name...), 0)
		b = append(b, p.data...)
	}
	headers = append(headers, header{len(names), len(b)})
	names = append(names, ".shstrtab\x00"...)
	b = append(b, names...)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	shoff := len(b)
	b = append(b, make([]byte, 64)...)
	for i, h := range headers {
		s := make([]byte, 64)
		le.PutUint32(s, uint32(h.name))
		le.PutUint32(s[4:], 1)
		le.PutUint64(s[24:], uint64(h.off))
		if i < len(pieces) {
			le.PutUint64(s[8:], pieces[i].flags)
			le.PutUint64(s[16:], pieces[i].addr)
			le.PutUint64(s[32:], uint64(len(pieces[i].data)))
		} else {
			le.PutUint64(s[32:], uint64(len(names)))
		}
		b = append(b, s...)
	}
	copy(b, "\x7fELF\x02\x01\x01")
	le.PutUint16(b[0x12:], 62)
	le.PutUint64(b[0x28:], uint64(shoff))
	le.PutUint16(b[0x3a:], 64)
	le.PutUint16(b[0x3c:], uint16(len(headers)+1))
	le.PutUint16(b[0x3e:], uint16(len(headers)))
	return b
}

// payload is the ELF file with the relocations behind it.
func (k *smallKernel) payload() []byte {
	b := le.AppendUint32(k.elf(), 0)
	add := func(list []uint32) {
		for _, v := range list {
			b = le.AppendUint32(b, v)
		}
	}
	add(k.longs)
	if b = le.AppendUint32(b, 0); k.inverseList {
		add(k.inverse)
		b = le.AppendUint32(b, 0)
	}
	add(k.words)
	return b
}

// vmlinuz is a bzImage of the payload.
func (k *smallKernel) vmlinuz(pack func([]byte) []byte) []byte {
	b := make([]byte, 1024)
	b[0x1f1] = 1
	copy(b[0x202:], "HdrS\x0f\x02")
	le.PutUint16(b[0x20e:], 0x100)
	copy(b[0x300:], "6.12.1-small (builder) #1")
	p := k.payload()
	packed := pack(p)
	if packed[0] != 0x1f {
		packed = le.AppendUint32(packed, uint32(len(p)))
	}
	le.PutUint32(b[0x248:], 32)
	le.PutUint32(b[0x24c:], uint32(len(packed)))
	return append(append(b, make([]byte, 32)...), packed...)
}

func packGzip(b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func packers(t testing.TB) map[string]func([]byte) []byte {
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]func([]byte) []byte{
		"gzip": packGzip,
		"zstd": func(b []byte) []byte {
			w, err := zstd.NewWriter(nil)
			must(err)
			return w.EncodeAll(b, nil)
		},
		"lz4": func(b []byte) []byte {
			out := []byte{0x02, 0x21, 0x4c, 0x18}
			for len(b) > 0 { // blocks smaller than the kernel's, so that there are some
				n := min(len(b), 10_000)
				block := make([]byte, lz4.CompressBlockBound(n))
				m, err := lz4.CompressBlock(b[:n], block, nil)
				must(err)
				out, b = append(le.AppendUint32(out, uint32(m)), block[:m]...), b[n:]
			}
			return out
		},
		"xz": func(b []byte) []byte {
			var out bytes.Buffer
			w, err := xz.NewWriter(&out)
			must(err)
			_, err = w.Write(b)
			must(err)
			must(w.Close())
			return out.Bytes()
		},
		"lzma": func(b []byte) []byte {
			var out bytes.Buffer
			w, err := lzma.NewWriter(&out)
			must(err)
			_, err = w.Write(b)
			must(err)
			must(w.Close())
			return out.Bytes()
		},
	}
}
