package linux

import (
	"fmt"
	"strings"

	"github.com/outsight-vmi/outsight/linux/kobj"
	"github.com/outsight-vmi/outsight/virt"
)

const overlayType = "overlay"

// Overlay is what a mount of overlayfs shows as one tree, in the words of whoever
// mounted it: paths may be relative to where that was.
type Overlay struct {
	Lower []string // the uppermost first
	Upper string   // empty if nothing can be written
	Work  string
}

// maxLayers bounds the lower layers of one mount, of which the kernel allows 500
// (OVL_MAX_STACK).
const maxLayers = 512

type overlayLayout struct {
	info          kobj.Field // struct super_block
	layers        kobj.Field // struct ovl_fs
	lower, lowers kobj.Field // of its config; one string until 6.6
	upper, work   kobj.Field
}

// oldOverlayLayout is the same, known without types.
type oldOverlayLayout overlayLayout

// overlayLayout finds the members; struct ovl_fs is the module's.
func (s *System) overlayLayout() (*overlayLayout, error) {
	o, err := LayoutIn(s, overlayType, overlayType, func(r *kobj.Resolver, o *overlayLayout) {
		const f = "ovl_fs"
		o.info, o.layers = r.Field("super_block", "s_fs_info"), r.Field(f, "numlayer", "numlower")
		o.lowers = r.Optional(f, "config.lowerdirs") // 6.7
		o.lower = kobj.Field{}
		if !o.lowers.Present() {
			o.lower = r.Field(f, "config.lowerdir")
		}
		o.upper, o.work = r.Field(f, "config.upperdir"), r.Field(f, "config.workdir")
	})
	if err == nil || !s.Since(5, 8) || s.Since(5, 11) {
		return o, err
	}
	// A module of these kernels has no types, but from 5.8 to 5.10 the structure was the
	// same: two counts, five pointers, a number, and the three names.
	old, err := kobj.LayoutOf(s.Walker, overlayType, func(r *kobj.Resolver, o *oldOverlayLayout) {
		word := func(at uint32) kobj.Field { return kobj.FieldAt(at, 8) }
		o.info, o.layers = r.Field("super_block", "s_fs_info"), kobj.FieldAt(0, 4)
		o.lower, o.upper, o.work = word(56), word(64), word(72)
		o.lowers = kobj.Field{}
	})
	return (*overlayLayout)(old), err
}

// overlay reads the folders of the overlay whose super_block is at sb.
func (l *ProcessReader) overlay(sb virt.Addr) (*Overlay, error) {
	o, err := l.s.overlayLayout()
	if err != nil {
		return nil, err
	}
	r := &l.r
	v, err := kobj.Read(r, func() *Overlay {
		fs := r.Pointer(sb, o.info)
		text := func(a virt.Addr) string {
			if a == 0 {
				return ""
			}
			s := r.CString(a, maxLayers*MaxPath)
			if !l.spend(len(s) + stringSize) {
				r.Err = kobj.ErrBudget
			}
			return s
		}
		v := &Overlay{Upper: text(r.Pointer(fs, o.upper)), Work: text(r.Pointer(fs, o.work))}
		if !o.lowers.Present() {
			v.Lower = splitLayers(text(r.Pointer(fs, o.lower)))
			return v
		}
		// The first is what the layers were parsed from, as one string.
		n, names := r.Uint(fs, o.layers), r.Pointer(fs, o.lowers)
		if n > maxLayers {
			r.Err = fmt.Errorf("%w: %d layers", kobj.ErrBroken, n)
		}
		for i := uint64(1); i < n && r.Err == nil; i++ {
			v.Lower = append(v.Lower, text(r.Ptr(names+virt.Addr(8*i))))
		}
		return v
	})
	if err != nil {
		return nil, fmt.Errorf("overlay at %#x: %w", uint64(sb), err)
	}
	return v, nil
}

// splitLayers splits the option lowerdir at its colons; a backslash takes the meaning from
// the next byte. Two colons begin a layer of data only (6.5).
func splitLayers(s string) []string {
	var layers []string
	var b strings.Builder
	end := func() {
		if b.Len() > 0 {
			layers = append(layers, b.String())
		}
		b.Reset()
	}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ':':
			end()
		default:
			b.WriteByte(s[i])
		}
	}
	end()
	return layers
}
