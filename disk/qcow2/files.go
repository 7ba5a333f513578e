package qcow2

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/outsight-vmi/outsight/disk"
)

// A Policy says which files of the host the images of a chain may name. Whoever made an image can name any file in it, and
// would read that by it: the shadow file, another's disk.
type Policy struct {
	// Folders are those whose files, and those of the folders in them, may be named, beside the folder of the image that
	// the user named. "/" allows everything. Where symbolic links lead counts.
	Folders []string
}

// maxChain is how many images a chain has at most, as libvirt has it.
const maxChain = 200

// ErrOutside is wrapped by errors about a file that an image names and its Policy does not allow.
var ErrOutside = errors.New("outside the folders that are allowed")

// OpenFile opens the image at a path, with all that it names, as far as the policy allows. If the file
// is not a qcow2 image, the error is disk.ErrUnknown. Image.Close closes all files.
func OpenFile(path string, p Policy) (*Image, error) {
	roots, err := p.roots(path)
	if err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	f, err := disk.OpenFile(path)
	if err != nil {
		return nil, err
	}
	return opener{roots: roots, cache: NewCache(DefaultCache)}.image(f, path)
}

// roots are the folders of which files may be opened, with their links resolved.
func (p Policy) roots(path string) ([]string, error) {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	// Names are relative to where the user says the image is, which may be a link. Both places are the user's choice.
	var roots []string
	for _, folder := range append([]string{filepath.Dir(path), filepath.Dir(real)}, p.Folders...) {
		folder, err := resolve(folder)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(roots, folder) {
			roots = append(roots, folder)
		}
	}
	return roots, nil
}

func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(path)
}

// opener opens the images of a chain.
type opener struct {
	roots []string
	cache *Cache
	above []fs.FileInfo // the images that led here
}

// image opens the image in a file, which it closes with it.
func (o opener) image(f *disk.File, path string) (*Image, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("qcow2: %w", err), f.Close())
	}
	for _, above := range o.above {
		if os.SameFile(above, info) {
			return nil, errors.Join(broken(-1, "%q is in the chain of its own backing files", path), f.Close())
		}
	}
	if len(o.above) >= maxChain {
		return nil, errors.Join(broken(-1, "a chain of more than %d images", maxChain), f.Close())
	}
	o.above = append(o.above[:len(o.above):len(o.above)], info)
	i, err := Open(f, Options{Cache: o.cache, Open: func(r Reference) (disk.Device, error) { return o.named(r, filepath.Dir(path)) }})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path, err), f.Close())
	}
	i.closers = append(i.closers, f)
	return i, nil
}

// named opens what an image in a folder names.
func (o opener) named(r Reference, folder string) (disk.Device, error) {
	name, format, err := r.path()
	if err != nil {
		return nil, err
	}
	if !filepath.IsAbs(name) {
		name = filepath.Join(folder, name)
	}
	f, err := o.open(name)
	if err != nil {
		return nil, err
	}
	if r.Role == DataFile {
		return f, nil
	}
	is, err := recognise(f)
	if err == nil && format == "" {
		format = is // as QEMU does
	}
	switch {
	case err != nil:
	case format == "qcow2":
		return o.image(f, name)
	case format == "raw":
		return f, nil
	default:
		err = fmt.Errorf("%w: format %q (raw and qcow2 are read)", disk.ErrUnsupported, format)
	}
	return nil, errors.Join(err, f.Close())
}

// open opens a file within the roots. What is decided about is what is opened, even if links change meanwhile: os.Root
// does not follow any out of its folder.
func (o opener) open(name string) (*disk.File, error) {
	real, err := resolve(name)
	if err != nil {
		return nil, err
	}
	for _, root := range o.roots {
		within, err := filepath.Rel(root, real)
		if err != nil || !filepath.IsLocal(within) {
			continue
		}
		return openWithin(root, within)
	}
	return nil, fmt.Errorf("%s is %w (%s): if the image's maker is trusted, allow the folder %s",
		real, ErrOutside, strings.Join(o.roots, ", "), filepath.Dir(real))
}

func openWithin(root, name string) (*disk.File, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, err
	}
	f, err := r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO would wait
	if err = errors.Join(err, r.Close()); err != nil {
		return nil, err
	}
	d, err := disk.NewFile(f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return d, nil
}

// path is the file that a reference names, and its format.
func (r Reference) path() (name, format string, err error) {
	name, format = r.Name, r.Format
	if options, ok := strings.CutPrefix(name, "json:"); ok {
		if name, format, err = fromJSON(options, format); err != nil {
			return "", "", err
		}
	} else {
		name = strings.TrimPrefix(name, "file:")
		if before, _, found := strings.Cut(name, ":"); found && !strings.Contains(before, "/") {
			return "", "", fmt.Errorf("%w: protocol %q (files are read)", disk.ErrUnsupported, before)
		}
	}
	if name == "" {
		return "", "", fmt.Errorf("%w: it has no name", disk.ErrUnsupported)
	}
	return name, format, nil
}

// harmless are options of QEMU that do not change what is read.
var harmless = map[string]bool{
	"node-name": true, "read-only": true, "auto-read-only": true, "discard": true, "detect-zeroes": true,
	"cache.direct": true, "cache.no-flush": true, "locking": true, "aio": true,
}

// fromJSON understands what QEMU and libvirt write for a file: {"driver":"qcow2","file":{"driver":"file","filename":"…"}}.
func fromJSON(text, format string) (name, driver string, err error) {
	var options map[string]any
	if err := json.Unmarshal([]byte(text), &options); err != nil {
		return "", "", fmt.Errorf("name in JSON: %w", err)
	}
	flat := map[string]string{}
	flatten(flat, "", options)
	protocol := ""
	for key, value := range flat {
		switch key {
		case "driver":
			driver = value
		case "file.driver":
			protocol = value
		case "filename", "file.filename", "file":
			if name != "" {
				return "", "", fmt.Errorf("%w: two file names", disk.ErrUnsupported)
			}
			name = value
		default:
			if !harmless[strings.TrimPrefix(key, "file.")] {
				return "", "", fmt.Errorf("%w: option %q", disk.ErrUnsupported, key)
			}
		}
	}
	if driver == "file" || driver == "host_device" { // of the protocol, not of the format
		driver, protocol = "", driver
	}
	if protocol != "" && protocol != "file" && protocol != "host_device" {
		return "", "", fmt.Errorf("%w: protocol %q (files are read)", disk.ErrUnsupported, protocol)
	}
	if driver == "" {
		driver = format
	}
	return name, driver, nil
}

func flatten(flat map[string]string, prefix string, options map[string]any) {
	for key, value := range options {
		if inner, ok := value.(map[string]any); ok {
			flatten(flat, prefix+key+".", inner)
			continue
		}
		flat[prefix+key] = fmt.Sprint(value)
	}
}

// recognise is the format that the content of a file has, as QEMU probes it.
func recognise(d disk.Device) (string, error) {
	b := make([]byte, 512)
	n, err := d.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	b = b[:n]
	starts := func(s string) bool { return strings.HasPrefix(string(b), s) }
	switch {
	case starts("QFI\xfb"):
		if n >= 8 && binary.BigEndian.Uint32(b[4:]) == 1 {
			return "qcow", nil
		}
		return "qcow2", nil
	case starts("KDMV"), starts("COWD"), starts("# Disk DescriptorFile"):
		return "vmdk", nil
	case starts("vhdxfile"):
		return "vhdx", nil
	case starts("conectix"):
		return "vpc", nil
	case starts("QED\x00"):
		return "qed", nil
	case n > 0x44 && binary.LittleEndian.Uint32(b[0x40:]) == 0xbeda107f:
		return "vdi", nil
	case starts("LUKS\xba\xbe"):
		return "luks", nil
	case starts("WithoutFreeSpace"), starts("WithouFreSpacExt"):
		return "parallels", nil
	}
	return "raw", nil
}
