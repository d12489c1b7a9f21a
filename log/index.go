package log

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"

	"github.com/x/embedlog/internal/vfs"
)

// A segment's sparse indexes: where frames start, by offset and log index, and
// which frame first reached a timestamp. They are caches. Entries for frames that
// are not yet durable are kept in memory; the rest lie in two files of 16-byte
// entries and are found by binary search, so that an idle partition holds none of
// them in memory. An entry proves itself by its CRC, which covers the segment's
// tag; the frame that it leads to proves the rest.

const indexEntryLen = 16

// placeEntry leads to a frame.
type placeEntry struct {
	offset int64  // first offset of the frame
	index  uint64 // first log index of the frame
	pos    int64
}

// timeEntry says that no frame up to and with the one at offset holds a timestamp
// larger than timestamp.
type timeEntry struct {
	timestamp int64
	offset    int64
}

// errIndex says that an index file does not hold what it should: rebuild it.
var errIndex = errors.New("index is damaged")

type sparseIndex struct {
	fs         vfs.FS
	baseOffset int64
	baseIndex  uint64
	tagSum     uint32 // CRC of the segment's tag

	flushing sync.Mutex // held while entries go to the files; taken before mu

	mu     sync.Mutex
	places fileEntries[placeEntry]
	times  fileEntries[timeEntry]
	// lastPos is the position of the newest entry, -1 when there is none.
	lastPos int64
	// lastTime is the timestamp of the newest entry of times.
	lastTime int64
}

// fileEntries are entries of which the first inFile lie in the file.
type fileEntries[E any] struct {
	name   string
	inFile int
	memory []E
}

func (x *sparseIndex) init(fs vfs.FS, baseOffset int64, baseIndex, tag uint64) {
	x.fs, x.baseOffset, x.baseIndex = fs, baseOffset, baseIndex
	x.tagSum = crc32.Checksum(binary.BigEndian.AppendUint64(nil, tag), castagnoli)
	x.places.name = segmentName(baseOffset, indexSuffix)
	x.times.name = segmentName(baseOffset, timeIndexSuffix)
	x.lastPos, x.lastTime = -1, noTimestamp
}

// load finds out how many entries the files hold. A file that is missing is an
// empty one.
func (x *sparseIndex) load() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range []struct {
		name string
		n    *int
	}{{x.places.name, &x.places.inFile}, {x.times.name, &x.times.inFile}} {
		info, err := x.fs.Stat(e.name)
		switch {
		case err == nil:
			*e.n = int(info.Size / indexEntryLen)
		case errors.Is(err, fs.ErrNotExist):
			*e.n = 0
		default:
			return err
		}
	}
	return nil
}

// add notes that a frame lies at p, and the largest timestamp up to and with it.
func (x *sparseIndex) add(p placeEntry, maxTimestamp int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lastPos = p.pos
	x.places.memory = append(x.places.memory, p)
	if maxTimestamp > x.lastTime {
		x.lastTime = maxTimestamp
		x.times.memory = append(x.times.memory, timeEntry{maxTimestamp, p.offset})
	}
}

// resume says what the newest entry in the files is.
func (x *sparseIndex) resume(pos, timestamp int64) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.lastPos, x.lastTime = pos, timestamp
}

// newest is the position of the newest entry, 0 when there is none.
func (x *sparseIndex) newest() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return max(x.lastPos, 0)
}

// unsaved is how many places are in memory only.
func (x *sparseIndex) unsaved() int {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.places.memory)
}

func (x *sparseIndex) putPlace(b []byte, e placeEntry) {
	binary.BigEndian.PutUint32(b, uint32(e.offset-x.baseOffset))
	binary.BigEndian.PutUint32(b[4:], uint32(e.index-x.baseIndex))
	binary.BigEndian.PutUint32(b[8:], uint32(e.pos))
	x.sign(b)
}

func (x *sparseIndex) putTime(b []byte, e timeEntry) {
	binary.BigEndian.PutUint64(b, uint64(e.timestamp))
	binary.BigEndian.PutUint32(b[8:], uint32(e.offset-x.baseOffset))
	x.sign(b)
}

func (x *sparseIndex) getPlace(b []byte) (placeEntry, error) {
	if x.sum(b) != binary.BigEndian.Uint32(b[12:]) {
		return placeEntry{}, errIndex
	}
	return placeEntry{
		offset: x.baseOffset + int64(binary.BigEndian.Uint32(b)),
		index:  x.baseIndex + uint64(binary.BigEndian.Uint32(b[4:])),
		pos:    int64(binary.BigEndian.Uint32(b[8:])),
	}, nil
}

func (x *sparseIndex) getTime(b []byte) (timeEntry, error) {
	if x.sum(b) != binary.BigEndian.Uint32(b[12:]) {
		return timeEntry{}, errIndex
	}
	return timeEntry{
		timestamp: int64(binary.BigEndian.Uint64(b)),
		offset:    x.baseOffset + int64(binary.BigEndian.Uint32(b[8:])),
	}, nil
}

func (x *sparseIndex) sum(b []byte) uint32 { return crc32.Update(x.tagSum, castagnoli, b[:12]) }

func (x *sparseIndex) sign(b []byte) { binary.BigEndian.PutUint32(b[12:], x.sum(b)) }

// flush writes the entries of frames below durable to the files and syncs them.
// An index that is lost with the power is rebuilt, but only within the bound that
// opening may read, so it has to be synced behind the data.
func (x *sparseIndex) flush(durable int64, sync bool) error {
	// The log may settle because it has gone quiet while a job still flushes: both
	// would write the same entries, and count them twice.
	x.flushing.Lock()
	defer x.flushing.Unlock()
	x.mu.Lock()
	n, through := 0, int64(-1)
	for n < len(x.places.memory) && x.places.memory[n].pos < durable {
		through = x.places.memory[n].offset
		n++
	}
	t := 0
	for t < len(x.times.memory) && x.times.memory[t].offset <= through {
		t++
	}
	places, times := x.places.memory[:n:n], x.times.memory[:t:t]
	placesAt, timesAt := x.places.inFile, x.times.inFile
	x.mu.Unlock()
	if n == 0 && t == 0 {
		return nil
	}

	// Recovery starts at the last place and takes the largest timestamp before it from
	// the index by time: that one must be on the disk first.
	b := make([]byte, max(n, t)*indexEntryLen)
	for i, e := range times {
		x.putTime(b[i*indexEntryLen:], e)
	}
	if err := writeEntries(x.fs, x.times.name, timesAt, b[:t*indexEntryLen], true); err != nil {
		return err
	}
	for i, e := range places {
		x.putPlace(b[i*indexEntryLen:], e)
	}
	if err := writeEntries(x.fs, x.places.name, placesAt, b[:n*indexEntryLen], sync); err != nil {
		return err
	}

	x.mu.Lock()
	defer x.mu.Unlock()
	x.places.inFile += n
	x.places.memory = append([]placeEntry(nil), x.places.memory[n:]...)
	x.times.inFile += t
	x.times.memory = append([]timeEntry(nil), x.times.memory[t:]...)
	return nil
}

// writeEntries writes b as the entries from number at on.
func writeEntries(fsys vfs.FS, name string, at int, b []byte, sync bool) error {
	if len(b) == 0 {
		return nil
	}
	f, err := openOrCreate(fsys, name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, int64(at)*indexEntryLen)
	if err == nil && sync {
		err = f.Datasync()
	}
	return errors.Join(err, f.Close())
}

func openOrCreate(fsys vfs.FS, name string) (vfs.File, error) {
	f, err := fsys.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return fsys.Create(name)
	}
	return f, err
}

// floorPlace returns the last entry for which after is false. ok is false when
// there is none. after must be false for the first entries and true for the rest.
func (x *sparseIndex) floorPlace(after func(placeEntry) bool) (e placeEntry, ok bool, err error) {
	return floorEntry(x, &x.places, x.getPlace, after)
}

// floorTime is floorPlace for the index by time.
func (x *sparseIndex) floorTime(after func(timeEntry) bool) (e timeEntry, ok bool, err error) {
	return floorEntry(x, &x.times, x.getTime, after)
}

// bytes is what the files take.
func (x *sparseIndex) bytes() int64 {
	x.mu.Lock()
	defer x.mu.Unlock()
	return int64(x.places.inFile+x.times.inFile) * indexEntryLen
}

// empty says whether there is no entry at all.
func (x *sparseIndex) empty() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.places.inFile == 0 && len(x.places.memory) == 0
}

func floorEntry[E any](x *sparseIndex, entries *fileEntries[E], get func([]byte) (E, error), after func(E) bool) (e E, ok bool, err error) {
	x.mu.Lock()
	for i := len(entries.memory) - 1; i >= 0; i-- {
		// Readers at the tail are the common case: from the back it is the first look.
		if e = entries.memory[i]; !after(e) {
			x.mu.Unlock()
			return e, true, nil
		}
	}
	n := entries.inFile
	x.mu.Unlock() // the writer adds entries under this lock: no file is read while it is held
	var none E
	if n == 0 {
		return none, false, nil
	}
	f, err := x.fs.Open(entries.name)
	if errors.Is(err, fs.ErrNotExist) {
		return none, false, errIndex
	}
	if err != nil {
		return none, false, err
	}
	defer f.Close()
	low, high := 0, n // entries below low are not after, those from high on are
	for low < high {
		mid := int(uint(low+high) / 2)
		got, err := readEntry(f, mid, get)
		if err != nil {
			return none, false, err
		}
		if after(got) {
			high = mid
		} else {
			low, e, ok = mid+1, got, true
		}
	}
	if !ok {
		e = none
	}
	return e, ok, nil
}

func readEntry[E any](f vfs.File, i int, get func([]byte) (E, error)) (E, error) {
	var b [indexEntryLen]byte
	if _, err := f.ReadAt(b[:], int64(i)*indexEntryLen); err != nil {
		var none E
		if err == io.EOF {
			return none, errIndex
		}
		return none, err
	}
	return get(b[:])
}

// reset forgets all entries, in memory and in the files; the caller scans the
// data and adds them again.
func (x *sparseIndex) reset() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, name := range []string{x.places.name, x.times.name} {
		if err := x.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	x.places = fileEntries[placeEntry]{name: x.places.name}
	x.times = fileEntries[timeEntry]{name: x.times.name}
	x.lastPos, x.lastTime = -1, noTimestamp
	return nil
}

// cut forgets the entries of frames at or behind pos.
func (x *sparseIndex) cut(pos int64) error {
	e, ok, err := x.floorPlace(func(p placeEntry) bool { return p.pos >= pos })
	if err != nil && !errors.Is(err, errIndex) {
		return err
	}
	if err != nil || !ok {
		return x.reset()
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if err := cutEntries(x.fs, &x.places, x.getPlace, func(p placeEntry) bool { return p.pos > e.pos }); err != nil {
		return err
	}
	x.lastPos = e.pos
	return cutEntries(x.fs, &x.times, x.getTime, func(t timeEntry) bool {
		if t.offset > e.offset {
			return true
		}
		x.lastTime = t.timestamp
		return false
	})
}

// cutTimes forgets the entries by time of frames behind the one at offset, which a
// flush or a cut that a crash interrupted can leave, and returns the last one that
// remains. errIndex says that it cannot be known. Recovery only: no entry is in memory.
func (x *sparseIndex) cutTimes(offset int64) (last timeEntry, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f, err := x.fs.Open(x.times.name)
	if errors.Is(err, fs.ErrNotExist) {
		return last, errIndex
	}
	if err != nil {
		return last, err
	}
	defer f.Close()
	n := x.times.inFile
	for ; n > 0; n-- {
		if last, err = readEntry(f, n-1, x.getTime); err != nil {
			return last, err
		}
		if last.offset <= offset {
			break
		}
	}
	if n == 0 {
		return last, errIndex
	}
	// Also when nothing is left over: a process that was killed may have cut the file
	// without the sync, and a power cut would bring the rest back.
	x.times.inFile = n
	err = shorten(f, n)
	return last, err
}

// cutEntries drops entries from the back as long as they are gone. The writer
// holds everything that could add to them.
func cutEntries[E any](fsys vfs.FS, entries *fileEntries[E], get func([]byte) (E, error), gone func(E) bool) error {
	for n := len(entries.memory); n > 0; n-- {
		if !gone(entries.memory[n-1]) {
			entries.memory = entries.memory[:n]
			return nil
		}
	}
	entries.memory = nil
	if entries.inFile == 0 {
		return nil
	}
	f, err := fsys.Open(entries.name)
	if err != nil {
		return err
	}
	defer f.Close()
	n := entries.inFile
	for ; n > 0; n-- {
		e, err := readEntry(f, n-1, get)
		if err == nil && !gone(e) {
			break
		}
		if err != nil && !errors.Is(err, errIndex) {
			return err
		}
	}
	entries.inFile = n
	return shorten(f, n)
}

// shorten leaves the first n entries. What it drops must not come back: nobody
// checks the index of a segment that was closed.
func shorten(f vfs.File, n int) error {
	return errors.Join(f.Truncate(int64(n)*indexEntryLen), f.Datasync())
}
