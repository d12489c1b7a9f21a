//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// disk is a node's own: ext4 in a file, on a loop device, and a control group whose writes
// to that device can be slowed.
type disk struct {
	image, dir string
	mounted    bool
	device     string // MAJOR:MINOR
	group      string // directory of the control group; empty without one
	noGroup    error  // why there is none
	v2         bool
}

// newDisk makes it, below dir.
func newDisk(dir, name string, node int32, bytes int64) (*disk, error) {
	d := &disk{image: filepath.Join(dir, fmt.Sprintf("disk%d", node)), dir: filepath.Join(dir, fmt.Sprintf("node%d", node))}
	f, err := os.Create(d.image)
	if err != nil {
		return d, err
	}
	if err := errors.Join(f.Truncate(bytes), f.Close(), os.Mkdir(d.dir, 0o700)); err != nil {
		return d, err
	}
	if err := run("mkfs.ext4", "-q", "-F", "-m", "0", d.image); err != nil {
		return d, err
	}
	if err := run("mount", "-o", "loop", d.image, d.dir); err != nil {
		return d, err
	}
	d.mounted = true
	var st syscall.Stat_t
	if err := syscall.Stat(d.dir, &st); err != nil {
		return d, err
	}
	d.device = fmt.Sprintf("%d:%d", st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00)
	d.noGroup = d.makeGroup(fmt.Sprintf("%s-%d", name, node))
	return d, nil
}

// makeGroup makes the control group, of version 1 where the controller is there.
func (d *disk) makeGroup(name string) error {
	root, limit := "/sys/fs/cgroup/blkio", "blkio.throttle.write_iops_device"
	if _, err := os.Stat(root); err != nil {
		root, limit, d.v2 = "/sys/fs/cgroup", "io.max", true
		if err := os.WriteFile(root+"/cgroup.subtree_control", []byte("+io"), 0o644); err != nil {
			return fmt.Errorf("no control group that slows writes: %w", err)
		}
	}
	group := filepath.Join(root, name)
	if err := os.Mkdir(group, 0o755); err != nil {
		return fmt.Errorf("no control group that slows writes: %w", err)
	}
	if _, err := os.Stat(filepath.Join(group, limit)); err != nil {
		return errors.Join(fmt.Errorf("no control group that slows writes: %w", err), os.Remove(group))
	}
	d.group = group
	return nil
}

// join puts a process under the group's limits.
func (d *disk) join(pid int) error {
	if d.group == "" {
		return nil
	}
	return os.WriteFile(filepath.Join(d.group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644)
}

// slow lets the device do so many writes a second for the processes of the group; 0 is no limit.
func (d *disk) slow(writes int) error {
	if d.v2 {
		limit := "max"
		if writes > 0 {
			limit = strconv.Itoa(writes)
		}
		return os.WriteFile(filepath.Join(d.group, "io.max"), []byte(d.device+" wiops="+limit), 0o644)
	}
	return os.WriteFile(filepath.Join(d.group, "blkio.throttle.write_iops_device"), fmt.Appendf(nil, "%s %d", d.device, writes), 0o644)
}

func (d *disk) filler() string { return filepath.Join(d.dir, "filler") }

// fill takes every free block.
func (d *disk) fill() error {
	f, err := os.Create(d.filler())
	if err != nil {
		return err
	}
	defer f.Close()
	var at int64
	for step := int64(1 << 30); step >= 4096; {
		switch err := syscall.Fallocate(int(f.Fd()), 0, at, step); {
		case err == nil:
			at += step
		case errors.Is(err, syscall.ENOSPC):
			step /= 2
		case errors.Is(err, syscall.EINTR):
		default:
			return fmt.Errorf("fill the disk: %w", err)
		}
	}
	return nil
}

// free gives the blocks back.
func (d *disk) free() error { return os.Remove(d.filler()) }

// remove takes it away. Its processes have ended.
func (d *disk) remove() error {
	var bad []error
	if d.mounted {
		err := run("umount", d.dir)
		for range 20 { // the kernel may hold it a moment longer than the process
			if err == nil || !strings.Contains(err.Error(), "busy") {
				break
			}
			time.Sleep(100 * time.Millisecond)
			err = run("umount", d.dir)
		}
		if err != nil {
			err = errors.Join(err, run("umount", "-l", d.dir))
		}
		bad = append(bad, err)
		d.mounted = false
	}
	if d.group != "" {
		bad = append(bad, os.Remove(d.group))
		d.group = ""
	}
	if err := os.Remove(d.image); !errors.Is(err, os.ErrNotExist) {
		bad = append(bad, err)
	}
	return errors.Join(bad...)
}
