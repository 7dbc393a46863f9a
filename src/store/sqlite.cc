#include <sqlite3.h>
#include <sys/stat.h>

#include "base/check.hh"
#include "base/result.hh"
#include "store/store.hh"

namespace godwit::store {
namespace {

constexpr int kSchemaVersion = 1;
constexpr int kBusyTimeoutMs = 2000;  // another agent on the same file is an error, not a wait

struct Close {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Database = std::unique_ptr<sqlite3, Close>;
using Statement = std::unique_ptr<sqlite3_stmt, Close>;

// Not written, as opposed to not known to be durable (a failed fsync): SQLite's log then lacks the
// frame that ends the transaction, and whoever reads it next passes over the rest.
bool is_no_room(int extended_code) {
  return extended_code == SQLITE_FULL || extended_code == SQLITE_IOERR_WRITE;
}

class SqliteDisk final : public Disk {
 public:
  explicit SqliteDisk(const std::string& path) : path_(path) {
    const mode_t old = ::umask(0077);
    sqlite3* raw = nullptr;
    const int status = sqlite3_open(path.c_str(), &raw);
    ::umask(old);
    db_.reset(raw);
    if (status != SQLITE_OK) fail_with("open");
    sqlite3_busy_timeout(raw, kBusyTimeoutMs);
    sqlite3_extended_result_codes(raw, 1);
    // One agent per store; and no index in shared memory, which would need room at the start.
    run("PRAGMA locking_mode=EXCLUSIVE");
    run("PRAGMA journal_mode=WAL");
    run("PRAGMA synchronous=FULL");
    check_version();
    run("CREATE TABLE IF NOT EXISTS documents (kind TEXT NOT NULL, key TEXT NOT NULL, "
        "body TEXT NOT NULL, PRIMARY KEY (kind, key)) WITHOUT ROWID");
    put_ = prepare(
        "INSERT INTO documents VALUES (?1, ?2, ?3) "
        "ON CONFLICT (kind, key) DO UPDATE SET body = excluded.body");
    erase_ = prepare("DELETE FROM documents WHERE kind = ?1 AND key = ?2");
    find_ = prepare("SELECT body FROM documents WHERE kind = ?1 AND key = ?2");
    list_ = prepare("SELECT key, body FROM documents WHERE kind = ?1 ORDER BY key");
  }

  Result<> write(const Changes& changes) override {
    if (sqlite3_exec(db_.get(), "BEGIN IMMEDIATE", nullptr, nullptr, nullptr) != SQLITE_OK) {
      return not_written();
    }
    for (const auto& [name, body] : changes) {
      if (!(body ? change(put_, {name.first, name.second, to_text(*body)})
                 : change(erase_, {name.first, name.second}))) {
        return not_written();
      }
    }
    if (sqlite3_exec(db_.get(), "COMMIT", nullptr, nullptr, nullptr) != SQLITE_OK) {
      return not_written();
    }
    return {};
  }

  std::optional<nlohmann::json> find(const DocumentName& name) override {
    std::optional<nlohmann::json> body;
    query(find_, {name.first, name.second},
          [&](sqlite3_stmt* row) { body = parse(column(row, 0)); });
    return body;
  }
  std::vector<Document> list(std::string_view kind) override {
    std::vector<Document> documents;
    query(list_, {kind},
          [&](sqlite3_stmt* row) { documents.push_back({column(row, 0), parse(column(row, 1))}); });
    return documents;
  }

 private:
  [[noreturn]] void fail_with(std::string_view attempt) {
    fail_setup("cannot {} the agent's store {}: {}; is the disk full or another agent running?",
               attempt, path_, sqlite3_errmsg(db_.get()));
  }

  void check_version() {
    int version = 0;
    const Statement statement = prepare("PRAGMA user_version");
    if (sqlite3_step(statement.get()) == SQLITE_ROW) {
      version = sqlite3_column_int(statement.get(), 0);
    }
    if (version > kSchemaVersion) {
      fail_setup(
          "the agent's store {} has version {}, this agent knows {}: install a newer godwitd",
          path_, version, kSchemaVersion);
    }
    // A full disk must not keep an agent from starting: no write that is not needed.
    if (version != kSchemaVersion) run(fmt::format("PRAGMA user_version={}", kSchemaVersion));
  }

  void run(const std::string& sql) {
    if (sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) {
      fail_with("set up");
    }
  }

  Statement prepare(std::string_view sql) {
    sqlite3_stmt* raw = nullptr;
    if (sqlite3_prepare_v2(db_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr) !=
        SQLITE_OK) {
      fail_with("prepare");
    }
    return Statement(raw);
  }

  // After a failed write: the error, once it is sure that nothing was written.
  std::unexpected<Error> not_written() {
    const int code = sqlite3_extended_errcode(db_.get());
    Error error{fmt::format("cannot write the agent's store {}: {}; make room on its disk", path_,
                            sqlite3_errmsg(db_.get()))};
    // SQLite may have rolled back by itself.
    if (sqlite3_get_autocommit(db_.get()) == 0) {
      sqlite3_exec(db_.get(), "ROLLBACK", nullptr, nullptr, nullptr);
    }
    if (!is_no_room(code)) throw Lost{std::move(error.text)};
    return std::unexpected(std::move(error));
  }

  using Arguments = std::initializer_list<std::string_view>;
  static sqlite3_stmt* bound(const Statement& statement, Arguments arguments) {
    sqlite3_stmt* raw = statement.get();
    sqlite3_reset(raw);
    int index = 0;
    for (const std::string_view argument : arguments) {
      sqlite3_bind_text(raw, ++index, argument.data(), static_cast<int>(argument.size()),
                        SQLITE_TRANSIENT);
    }
    return raw;
  }
  template <class OnRow>
  void query(const Statement& statement, Arguments arguments, OnRow on_row) {
    sqlite3_stmt* raw = bound(statement, arguments);
    int status = 0;
    while ((status = sqlite3_step(raw)) == SQLITE_ROW) on_row(raw);
    sqlite3_reset(raw);
    if (status != SQLITE_DONE) fail_with("use");
  }
  static bool change(const Statement& statement, Arguments arguments) {
    sqlite3_stmt* raw = bound(statement, arguments);
    const bool done = sqlite3_step(raw) == SQLITE_DONE;
    return sqlite3_reset(raw) == SQLITE_OK && done;
  }

  // A reason may quote QEMU's log, which may hold anything: replace, never throw.
  static std::string to_text(const nlohmann::json& body) {
    return body.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  }
  static std::string column(sqlite3_stmt* row, int index) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(row, index));
    return {text, static_cast<std::size_t>(sqlite3_column_bytes(row, index))};
  }
  nlohmann::json parse(const std::string& text) {
    auto body = nlohmann::json::parse(text, nullptr, false);
    if (body.is_discarded()) fail_setup("the agent's store {} holds a damaged document", path_);
    return body;
  }

  std::string path_;
  Database db_;
  Statement put_, erase_, find_, list_;
};

}  // namespace

std::unique_ptr<Store> open_sqlite(const std::string& path) {
  return open_on(std::make_shared<SqliteDisk>(path));
}

}  // namespace godwit::store
