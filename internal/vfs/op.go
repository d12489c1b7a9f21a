package vfs

// Op names an operation, for counting, crashing and injecting faults.
type Op uint8

// The operations. OpAny matches each of them in a Rule.
const (
	OpAny Op = iota
	OpOpen
	OpCreate
	OpMkdir
	OpRename
	OpLink
	OpRemove
	OpSyncDir
	OpLock
	OpWrite
	OpAppend
	OpZero
	OpTruncate
	OpAllocate
	OpSync
	OpDatasync
	OpMap
	OpStore
	// Those below change nothing. NewMem counts them only when asked (CountReads).
	OpRead
	OpStat
	OpList
	opCount
)

var opNames = [opCount]string{
	"any", "open", "create", "mkdir", "rename", "link", "remove", "syncdir", "lock",
	"write", "append", "zero", "truncate", "allocate", "sync", "datasync", "map", "store",
	"read", "stat", "list",
}

func (o Op) String() string {
	if o < opCount {
		return opNames[o]
	}
	return "unknown"
}

// reads says whether the operation leaves everything as it was.
func (o Op) reads() bool { return o >= OpRead }
