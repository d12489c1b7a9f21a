package history

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"sync"
)

// maxLine bounds the bytes of a line, and with it the memory that reading takes.
const maxLine = 16 << 20

// ErrLineTooLong is the error for a line of more than 16 MiB.
var ErrLineTooLong = errors.New("history: line is longer than 16 MiB")

// Writer appends operations to a file. Each is handed to the system whole before
// Append returns, so a killed recorder leaves at most one torn line, its last. It is
// safe for concurrent use; several writers, also of other processes, may append to
// one file.
type Writer struct {
	mu   sync.Mutex
	file *os.File
	buf  []byte
	torn bool // a write came to an end in the middle
}

// OpenWriter opens or makes the file. What a killed writer left of a line is ended
// there, so that it spoils no other.
func OpenWriter(path string) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{file: f}
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil && size > 0 {
		var last [1]byte
		_, err = f.ReadAt(last[:], size-1)
		w.torn = last[0] != '\n'
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open history %s: %w", path, err)
	}
	return w, nil
}

// Append writes one operation. With the outcome Begun it announces one that has not
// been answered yet: if it never is, because the recorder is killed, it will have
// ended as Info with what the announcement says. The line that ends it, or that says
// more of it, has the same process, kind and start, and says everything again.
func (w *Writer) Append(op *Op) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.buf[:0]
	if w.torn {
		b = append(b, '\n')
	}
	b, err := AppendLine(b, op)
	if err != nil {
		return err
	}
	if len(b) > maxLine {
		return ErrLineTooLong
	}
	w.buf = b
	if n, err := w.file.Write(b); err != nil {
		w.torn = w.torn || n > 0
		return fmt.Errorf("append to history: %w", err)
	}
	w.torn = false
	return nil
}

// Close closes the file.
func (w *Writer) Close() error { return w.file.Close() }

// LineError says which line of which file cannot be read.
type LineError struct {
	Path string
	Line int // from 1
	Err  error
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %v", e.Path, e.Line, e.Err) }
func (e *LineError) Unwrap() error { return e.Err }

// TornLine is a line whose writer was killed in the middle of it.
type TornLine struct {
	Path string
	Line int // from 1
}

// Files is a Source of the files that writers wrote, one after the other. Walks must
// not overlap.
type Files struct {
	paths []string
	torn  []TornLine
}

// OpenFiles makes a Source of files. They are opened by each walk.
func OpenFiles(paths ...string) *Files { return &Files{paths: slices.Clone(paths)} }

// TornLines are the torn lines that the last walk met. Each stands for an operation
// that was announced and is Info, or that was not even begun.
func (f *Files) TornLines() []TornLine { return f.torn }

// Ops implements Source. An error is a *LineError, or one of the file system.
func (f *Files) Ops() iter.Seq2[*Op, error] {
	return func(yield func(*Op, error) bool) {
		f.torn = nil
		w := &walk{yield: yield, begun: map[int32]*Op{}}
		for _, path := range f.paths {
			err := w.file(f, path)
			if w.stopped {
				return
			}
			if err != nil {
				yield(nil, err)
				return
			}
		}
		w.unfinished()
	}
}

// walk pairs announcements with what became of them.
type walk struct {
	yield   func(*Op, error) bool
	stopped bool
	dec     Decoder
	op      Op
	begun   map[int32]*Op
}

func (w *walk) file(f *Files, path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	r := bufio.NewReaderSize(file, 256<<10)
	var long []byte
	for n := 1; ; n++ {
		line, err := readLine(r, &long)
		if err != nil && err != io.EOF {
			return &LineError{path, n, err}
		}
		if len(line) > 0 {
			switch err := w.line(line); {
			case w.stopped:
				return nil
			case errors.Is(err, ErrTorn):
				f.torn = append(f.torn, TornLine{path, n})
			case err != nil:
				return &LineError{path, n, err}
			}
		}
		if err == io.EOF {
			return nil
		}
	}
}

// readLine reads up to a newline, which it leaves out, or to the end of the file:
// then the error is io.EOF.
func readLine(r *bufio.Reader, long *[]byte) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if err == bufio.ErrBufferFull {
		*long = append((*long)[:0], line...)
		for err == bufio.ErrBufferFull {
			line, err = r.ReadSlice('\n')
			if *long = append(*long, line...); len(*long) > maxLine {
				return nil, ErrLineTooLong
			}
		}
		line = *long
	}
	if err == nil {
		line = line[:len(line)-1]
	}
	return line, err
}

// line takes a line. Its closing brace says that it is whole, not the newline.
func (w *walk) line(line []byte) error {
	if err := w.dec.Decode(line, &w.op); err != nil {
		return err
	}
	op := &w.op
	if was := w.begun[op.Process]; was != nil {
		delete(w.begun, op.Process)
		if was.Kind != op.Kind || was.Start != op.Start {
			w.emit(was, Info)
		}
	}
	if op.Outcome == Begun {
		w.begun[op.Process] = op.Clone()
	} else if !w.stopped {
		w.emit(op, op.Outcome)
	}
	return nil
}

// unfinished gives what was announced and never ended.
func (w *walk) unfinished() {
	processes := make([]int32, 0, len(w.begun))
	for p := range w.begun {
		processes = append(processes, p)
	}
	slices.Sort(processes)
	for _, p := range processes {
		if w.stopped {
			return
		}
		w.emit(w.begun[p], Info)
	}
}

func (w *walk) emit(op *Op, o Outcome) {
	op.Outcome = o
	if !w.yield(op, nil) {
		w.stopped = true
	}
}
