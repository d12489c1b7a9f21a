// Package seed holds bugs that can be switched on, to test the tests: with the
// build tag seededbugs, EMBEDLOG_BUG=name puts one of them into the code, and the
// test that the table names must fail. Without the tag Is is the constant false.
//
//	go run ./internal/seed/run
package seed

// Bug is one seeded bug.
type Bug struct {
	Name    string
	Package string // of the test, below the module
	Test    string // that must catch it
}

// All is the table of seeded bugs.
var All = []Bug{
	{NoFsync, "log", "TestCrashStates"},
	{NoDirFsync, "log", "TestCrashStates"},
	{RetryFsync, "log", "TestEveryOperationFailsOnce"},
	{IgnoreFsync, "log", "TestEveryOperationFailsOnce"},
	{TrustCache, "log", "TestEveryOperationFailsOnce"},
	{TrustIndex, "log", "TestCrashStates"},
	{CheckpointNoFsync, "log", "TestCrashStates"},
	{CheckpointNoDirFsync, "log", "TestCrashStates"},
	{CutUnnamed, "log", "TestCrashStates"},
	{FailedWriteStays, "log", "TestEveryOperationFailsOnce"},
	{OpenNoDirFsync, "log", "TestOpenKeepsWhatItShows"},
	{StartUnsynced, "partition", "TestCrashStates"},
	{CloseHidesFailure, "log", "TestEveryOperationFailsOnce"},
	{StaleFrames, "log", "TestFrameOfAnotherLife"},
	{CutAtBadChecksum, "log", "TestFlipEveryBit"},
	{StateAhead, "partition", "TestCrashStates"},
	{AckBeforeFsync, "partition", "TestCrashStates"},
	{WatermarkBack, "partition", "TestCrashStates"},
	{ForgetProducers, "partition", "TestCrashStates"},
	{ForgetEpochs, "partition", "TestCrashStates"},
	{SnapshotUncommitted, "partition", "TestCrashStates"},
	{VisibleMarker, "partition", "TestCrashStates"},
	{ReplicaNoFsync, "raftrepl", "TestSimulation"},
	{LeaderAlone, "raftrepl", "TestSimulation"},
	{FollowerShowsAll, "raftrepl", "TestSimulation"},
	{VoteForgotten, "raftrepl", "TestSimulation"},
	{WatermarkFollows, "raftrepl", "TestSimulation"},
	{DoubtIgnored, "raftrepl", "TestSimulation"},
	{DoubtEndsEarly, "raftrepl", "TestSimulation"},
	{StaleRead, "raftrepl", "TestSimulation"},
	{StaleProducers, "raftrepl", "TestSimulation"},
	{RetainAlone, "raftrepl", "TestSimulation"},
	{CompactAhead, "raftrepl", "TestSimulation"},
	{DeposedAcks, "raftrepl", "TestSimulation"},
	{CutForgotten, "raftrepl", "TestSimulation"},
	{CacheKeepsCut, "raftrepl", "TestSimulation"},
	{LeaderUnsynced, "raftrepl", "TestSimulation"},
	{FollowerUnsynced, "raftrepl", "TestSimulation"},
	{SyncCoversLater, "raftrepl", "TestFollowerAnswersWhenItHasSynced"},
	{InstanceTrusts, "raftrepl", "TestNextInstanceSyncsBeforeItAnswers"},
	{ViewNoRetract, "query", "TestOracle"},
	{ViewPadding, "query", "TestOracle"},
	{ViewForeign, "query", "TestOracle"},
	{ViewRanked, "query", "TestOracle"},
	{ViewTombstone, "query", "TestOracle"},
	{ViewFilter, "query", "TestOracle"},
	{ViewEmptyGroup, "query", "TestOracle"},
	{ViewRestore, "query", "TestOracle"},
	{ViewSnapshot, "query", "TestStoreIsAMap"},
	{ViewSinkTwice, "query", "TestCrashes"},
	{ViewAhead, "query", "TestOracle"},
	{ViewTimes, "query", "TestOracle"},
	{ViewGhosts, "query", "TestDeletedRowsStayDeleted"},
	{ViewMarkTwice, "query", "TestRepartitionInterleaved"},
	{ViewWaiting, "query", "TestRepartitionInterleaved"},
	{ViewRepartition, "query", "TestOracle"},
	{ViewCut, "query", "TestCutThroughStages"},
	{ViewIndex, "query", "TestOracle"},
	{ViewIndexEmpty, "query", "TestOracle"},
	{ViewGlobal, "query", "TestGlobalOracle"},
	{ViewStateTable, "query", "TestOracle"},
	{ViewTimer, "query", "TestOracle"},
	{ViewDeadTwice, "query", "TestOracle"},
	{ViewLate, "query", "TestWindowOracle"},
	{ViewGrace, "query", "TestWindowOracle"},
	{ViewExpiry, "query", "TestWindowOracle"},
	{ViewFinalTwice, "query", "TestWindowOracle"},
	{ViewSessionMerge, "query", "TestWindowOracle"},
	{ViewSessionGap, "query", "TestWindowOracle"},
	{ViewStreamJoin, "query", "TestWindowOracle"},
	{ViewUnmatched, "query", "TestWindowOracle"},
	{ViewStreamTime, "query", "TestWindowOracle"},
}

// The bugs, by what is wrong.
const (
	NoFsync              = "no-fsync"
	NoDirFsync           = "no-directory-fsync"
	RetryFsync           = "retry-failed-fsync"
	IgnoreFsync          = "go-on-after-failed-fsync"
	TrustCache           = "trust-cache-after-failed-fsync"
	TrustIndex           = "trust-index"
	CheckpointNoFsync    = "checkpoint-no-fsync"
	CheckpointNoDirFsync = "checkpoint-no-directory-fsync"
	CutUnnamed           = "truncate-without-naming-the-cut"
	FailedWriteStays     = "failed-write-stays"
	OpenNoDirFsync       = "open-no-directory-fsync"
	StartUnsynced        = "start-past-synced-end"
	CloseHidesFailure    = "close-hides-failure"
	StaleFrames          = "stale-frames-count"
	CutAtBadChecksum     = "cut-at-bad-checksum"
	StateAhead           = "state-ahead-of-data"
	AckBeforeFsync       = "acknowledge-before-fsync"
	WatermarkBack        = "watermark-goes-back"
	ForgetProducers      = "producers-not-recovered"
	ForgetEpochs         = "epochs-not-recovered"
	SnapshotUncommitted  = "snapshot-of-uncommitted"
	VisibleMarker        = "undecided-is-visible"

	ReplicaNoFsync   = "replica-acknowledges-before-fsync"
	LeaderAlone      = "leader-commits-alone"
	FollowerShowsAll = "follower-shows-uncommitted"
	VoteForgotten    = "vote-not-persisted"
	DoubtIgnored     = "doubtful-replica-votes"
	DoubtEndsEarly   = "doubt-ends-at-first-commit"
	StaleRead        = "stale-leader-confirms"
	StaleProducers   = "producers-survive-truncation"
	RetainAlone      = "retention-without-command"
	CompactAhead     = "compaction-above-committed"
	DeposedAcks      = "deposed-leader-acknowledges"
	CutForgotten     = "truncation-not-synced"
	CacheKeepsCut    = "cache-keeps-truncated"
	WatermarkFollows = "watermark-follows-the-leader"
	LeaderUnsynced   = "leader-counts-before-its-sync"
	FollowerUnsynced = "follower-answers-before-its-sync"
	SyncCoversLater  = "sync-covers-what-came-during-it"
	InstanceTrusts   = "next-instance-takes-entries-for-synced"

	ViewNoRetract  = "view-keeps-the-old-row"
	ViewPadding    = "view-join-keeps-the-padding"
	ViewForeign    = "view-foreign-join-misses-a-change"
	ViewRanked     = "view-minimum-keeps-what-was-deleted"
	ViewTombstone  = "view-tombstone-is-ignored"
	ViewFilter     = "view-filter-loses-deletions"
	ViewEmptyGroup = "view-empty-group-stays"
	ViewRestore    = "view-restore-from-the-beginning"
	ViewSnapshot   = "view-snapshot-shows-later-rows"
	ViewSinkTwice  = "view-sink-appends-twice"
	ViewAhead      = "view-position-without-rows"
	ViewTimes      = "view-multiset-forgets-how-many"
	ViewGhosts     = "view-checkpoint-brings-back-deleted"

	ViewMarkTwice   = "view-mark-applied-twice"
	ViewWaiting     = "view-waiting-rows-lost"
	ViewRepartition = "view-repartition-loses-deletions"
	ViewCut         = "view-snapshot-tears-stages"
	ViewIndex       = "view-index-keeps-old-places"
	ViewIndexEmpty  = "view-index-empty-after-restart"
	ViewGlobal      = "view-global-table-not-waited-for"
	ViewStateTable  = "view-store-table-misses-deletions"
	ViewTimer       = "view-timer-fires-again"
	ViewDeadTwice   = "view-dead-letter-twice"

	ViewLate         = "view-late-by-one"
	ViewGrace        = "view-grace-is-ignored"
	ViewExpiry       = "view-window-expires-too-early"
	ViewFinalTwice   = "view-window-final-twice"
	ViewSessionMerge = "view-session-merge-forgets"
	ViewSessionGap   = "view-session-gap-is-one-less"
	ViewStreamJoin   = "view-stream-join-misses-the-last-moment"
	ViewUnmatched    = "view-stream-join-shows-what-was-matched"
	ViewStreamTime   = "view-restart-forgets-stream-time"
)
