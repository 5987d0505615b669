#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <string>
#include <utility>

namespace faiss_flash {

/// "2 h 05 min", "3 min 20 s", "12 s": seconds for people, never negative.
inline std::string readable_seconds(double seconds) {
    if (!(seconds > 0)) {
        seconds = 0;
    }
    const double whole = std::min(std::ceil(seconds), 359999.0);
    const int s = static_cast<int>(whole);
    char text[48];
    if (s >= 3600) {
        std::snprintf(
                text, sizeof(text), "%d h %02d min", s / 3600, s % 3600 / 60);
    } else if (s >= 60) {
        std::snprintf(text, sizeof(text), "%d min %02d s", s / 60, s % 60);
    } else {
        std::snprintf(text, sizeof(text), "%d s", s);
    }
    return text;
}

/// One line of progress after `elapsed` seconds: label, bar, per cent and,
/// once something is done, the time left at the average speed so far.
inline std::string progress_line(
        const std::string& label,
        double done,
        double total,
        double elapsed) {
    constexpr int bar_width = 24;
    const double part =
            total > 0 ? std::min(std::max(done / total, 0.0), 1.0) : 1.0;
    const int filled = static_cast<int>(part * bar_width);
    std::string line = label + " [" + std::string(filled, '#') +
            std::string(bar_width - filled, '-') + "] ";
    line += std::to_string(static_cast<int>(part * 100)) + " %, ";
    if (part >= 1) {
        line += readable_seconds(elapsed);
    } else if (part > 0) {
        line += readable_seconds(elapsed * (1 - part) / part) + " left";
    } else {
        line += "time left unknown";
    }
    return line;
}

/// Progress of one long loop on stderr.
///
/// On a terminal: one line redrawn in place, at most ten times a second, and
/// nothing at all for work that ends within half a second. Elsewhere (a log
/// file, CI): a full line every ten seconds, so short work prints nothing.
/// For one thread at a time; costs one clock reading per update().
class ProgressBar {
   public:
    /// `total` in any unit; update() takes the same unit.
    ProgressBar(std::string label, double total, std::FILE* out = stderr)
            : ProgressBar(
                      std::move(label),
                      total,
                      out,
                      isatty(fileno(out)) == 1) {}

    /// As above; `terminal` says how to draw, instead of asking the system.
    ProgressBar(std::string label, double total, std::FILE* out, bool terminal)
            : label_(std::move(label)),
              total_(total),
              out_(out),
              terminal_(terminal),
              start_(Clock::now()),
              next_(terminal ? 0.5 : 10.0) {}

    ProgressBar(const ProgressBar&) = delete;
    ProgressBar& operator=(const ProgressBar&) = delete;

    ~ProgressBar() {
        finish();
    }

    /// Sets how much is done in all, and draws when it is time to.
    void update(double done) {
        done_ = done;
        const double elapsed = seconds();
        if (!finished_ && elapsed >= next_) {
            draw(elapsed);
            next_ = elapsed + (terminal_ ? 0.1 : 10.0);
        }
    }

    /// Adds to what is done.
    void add(double step) {
        update(done_ + step);
    }

    /// Ends the line. Called by the destructor; later updates draw nothing.
    void finish() {
        if (finished_) {
            return;
        }
        if (drawn_) {
            draw(seconds());
            if (terminal_) {
                std::fputc('\n', out_);
                std::fflush(out_);
            }
        }
        finished_ = true;
    }

   private:
    using Clock = std::chrono::steady_clock;

    double seconds() const {
        return std::chrono::duration<double>(Clock::now() - start_).count();
    }

    void draw(double elapsed) {
        const std::string line = progress_line(label_, done_, total_, elapsed);
        // \r and "erase to the end of the line" redraw in place.
        std::fprintf(out_, terminal_ ? "\r%s\033[K" : "%s\n", line.c_str());
        std::fflush(out_);
        drawn_ = true;
    }

    std::string label_;
    double total_;
    std::FILE* out_;
    bool terminal_;
    Clock::time_point start_;
    double next_; // seconds after start_ before which nothing is drawn
    double done_ = 0;
    bool drawn_ = false;
    bool finished_ = false;
};

} // namespace faiss_flash
