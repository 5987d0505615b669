#pragma once

// Random sequences of operations on an index and on the model of it.

#include <tests/model_changes.h>

#include <filesystem>

#include <unistd.h>

#include <faiss_flash/flash_index_io.h>

namespace test {

template <class T>
class Driver : ModelChanges<T> {
    using Base = ModelChanges<T>;
    using Base::below, Base::d, Base::index_, Base::log_, Base::model_,
            Base::pool_, Base::rng_;

   public:
    using Base::Base;
    Driver(const Pool<T>& pool,
           AssignmentPolicy policy,
           DirectMap::Type map,
           bool repeat_ids,
           unsigned seed)
            : Base(pool, policy, map, repeat_ids, seed) {}

    void run(int nstep) {
        for (int step = 0; step < nstep; step++) {
            one_operation();
            this->check_counts();
        }
        search();
        index_->recount();
        expect((size_t)index_->ntotal == model_.vectors.size(),
               "recount gives another number of ids");
    }

    std::string log() const {
        return log_.str();
    }

   private:
    void one_operation() {
        switch (below(18)) {
            case 0:
            case 1:
            case 2:
                return this->add();
            case 3:
                return this->add_with_ids();
            case 4:
                return this->add_to_lists();
            case 5:
                return this->add_codes();
            case 6:
            case 7:
                return this->remove();
            case 8:
                return this->update();
            case 9:
                return merge();
            case 10:
                return copy_subset();
            case 11:
                return this->change_map();
            case 12:
                return reconstruct();
            case 13:
                return range_search();
            case 14:
                return search_and_reconstruct();
            case 15:
                return below(8) == 0 ? this->reset() : search();
            case 16:
                return below(16) == 0 ? write_and_read() : search();
            default:
                return search();
        }
    }

    bool by_id() const {
        return index_->has_copies;
    }

    /*********************************************************
     * Other indexes
     *********************************************************/

    void merge() {
        auto other = pool_.fresh();
        other->policy = below(2) ? index_->policy : AssignmentPolicy::nearest();
        const size_t n = below(6);
        std::vector<size_t> vectors;
        std::vector<float> x;
        for (size_t i = 0; i < n; i++) {
            vectors.push_back(below(pool_.nvector));
            const float* row = &pool_.x[vectors.back() * d];
            x.insert(x.end(), row, row + d);
        }
        other->add(n, x.data());
        const idx_t add_id = model_.max_id() + 1 + below(3);
        log_ << "merge(" << n << ") ";
        auto call = [&] { index_->merge_from(*other, add_id); };
        if (!index_->direct_map.no()) {
            this->expect_throw(call);
            expect((size_t)other->ntotal == n, "a failed merge took vectors");
            return;
        }
        call();
        expect(other->ntotal == 0 && other->ncopies() == 0 &&
                       !other->has_copies,
               "merging left something behind");
        for (size_t i = 0; i < n; i++) {
            model_.add(add_id + i, vectors[i]);
        }
        this->total_ += n;
    }

    /// Two or three copies that have to add up to everything.
    void copy_subset() {
        const int type = below(5);
        const size_t nparts = 2 + below(2);
        log_ << "copy(" << type << ") ";
        const idx_t least =
                model_.vectors.empty() ? 0 : model_.vectors.begin()->first;
        std::vector<idx_t> bounds = {type == 0 ? std::min<idx_t>(0, least) : 0};
        const idx_t end = type == 0 ? model_.max_id() + 1
                : type == 2         ? index_->ntotal
                                    : (idx_t)pool_.nlist;
        for (size_t part = 1; part < nparts; part++) {
            bounds.push_back(bounds.back() + below(end - bounds.back() + 1));
        }
        bounds.push_back(end);
        std::map<idx_t, size_t> parts_of_id;
        size_t entries = 0;
        idx_t total = 0;
        for (size_t part = 0; part < nparts; part++) {
            auto target = pool_.fresh();
            const bool by_fraction = type == 1 || type == 3;
            index_->copy_subset_to(
                    *target,
                    FAISS_FLASH_SUBSET_TYPE(type),
                    by_fraction ? (idx_t)nparts : bounds[part],
                    by_fraction ? (idx_t)part : bounds[part + 1]);
            entries += target->ncopies();
            total += target->ntotal;
            expect(this->repeat_ids_ ||
                           target->ntotal ==
                                   (idx_t)faiss_flash::count_distinct_ids(
                                           *target->invlists),
                   "the copy's ntotal does not count vectors");
            check_part(*target, type, bounds[part], bounds[part + 1], nparts);
            for (idx_t id : ids_in(*target)) {
                parts_of_id[id]++;
            }
        }
        if (type == 1 && least < 0) {
            return; // remainders of negative numbers are negative
        }
        expect(entries == index_->ncopies(), "parts are not the whole");
        if (type != 4 && !this->repeat_ids_) {
            expect(total == index_->ntotal, "parts have other vectors");
            for (auto& entry : parts_of_id) {
                expect(entry.second == 1, "copies are in different parts");
            }
        }
    }

    void check_part(T& part, int type, idx_t a1, idx_t a2, size_t nparts) {
        const std::set<idx_t> ids = ids_in(part);
        for (auto& entry : model_.vectors) {
            const idx_t id = entry.first;
            if (type == 0) {
                expect(ids.count(id) == (a1 <= id && id < a2), "type 0");
            } else if (type == 1) {
                // a part for every remainder
                expect(ids.count(id) <= 1 && nparts > 0, "type 1");
            }
        }
        if (part.ntotal > 0 && !this->repeat_ids_) {
            Model rest;
            for (idx_t id : ids) {
                rest.vectors[id] = model_.vectors.at(id);
            }
            search_in(part, rest);
        }
    }

    static std::set<idx_t> ids_in(const faiss::IndexIVF& index) {
        std::set<idx_t> ids;
        for (auto& list : ListContents(index).ids) {
            ids.insert(list.begin(), list.end());
        }
        return ids;
    }

    void write_and_read() {
        log_ << "file ";
        const std::string path = (std::filesystem::temp_directory_path() /
                                  ("flash_model_" + std::to_string(getpid())))
                                         .string();
        faiss_flash::write_index(index_.get(), path.c_str());
        std::unique_ptr<faiss::Index> read(
                faiss_flash::read_index(path.c_str()));
        std::filesystem::remove(path);
        auto* same = dynamic_cast<T*>(read.get());
        expect(same, "read as another class");
        expect(ListContents(*same) == ListContents(*index_),
               "the file has other lists");
        read.release();
        same->nprobe = pool_.nlist;
        index_.reset(same);
    }

    /*********************************************************
     * Looking
     *********************************************************/

    void reconstruct() {
        log_ << "reconstruct ";
        std::vector<float> y(d);
        for (auto& entry : model_.vectors) {
            if (index_->direct_map.no()) {
                break;
            }
            index_->reconstruct(entry.first, y.data());
            expect(std::any_of(
                           entry.second.begin(),
                           entry.second.end(),
                           [&](size_t v) {
                               return pool_.is_decoded(v, y.data());
                           }),
                   "id " + std::to_string(entry.first) +
                           " is reconstructed as something else");
        }
        this->expect_throw(
                [&] { index_->reconstruct(idx_t(1) << 59, y.data()); });
        const idx_t n = index_->ntotal;
        std::vector<float> all(n * d, -1e30f);
        index_->reconstruct_n(0, n, all.data());
        for (idx_t id = 0; id < n; id++) {
            auto known = model_.vectors.find(id);
            if (known == model_.vectors.end()) {
                expect(all[id * d] == -1e30f, "reconstruct_n makes things up");
            } else {
                expect(std::any_of(
                               known->second.begin(),
                               known->second.end(),
                               [&](size_t v) {
                                   return pool_.is_decoded(v, &all[id * d]);
                               }),
                       "reconstruct_n gives something else");
            }
        }
    }

    void search() {
        index_->parallel_mode = below(4);
        log_ << "search(mode " << index_->parallel_mode << ") ";
        search_in(*index_, model_);
        index_->parallel_mode = 0;
    }

    void search_in(const T& index, const Model& model) {
        const size_t nq = 1 + below(pool_.nquery);
        const idx_t k = 1 + below(12);
        auto selector = this->selector();
        faiss::SearchParametersIVF params;
        params.nprobe = pool_.nlist;
        params.sel = below(2) ? selector.sel.get() : nullptr;
        const bool with_params = params.sel || below(2);
        std::vector<float> queries(pool_.q.begin(), pool_.q.begin() + nq * d);
        const Results found = test::search(
                index, queries, k, with_params ? &params : nullptr);
        for (size_t i = 0; i < nq; i++) {
            check_results(
                    pool_,
                    model,
                    params.sel,
                    index.has_copies,
                    i,
                    k,
                    &found.labels[i * k],
                    &found.distances[i * k]);
        }
    }

    void range_search() {
        index_->parallel_mode = below(3);
        log_ << "range_search(mode " << index_->parallel_mode << ") ";
        // all, with a radius that takes everything, or about half
        float radius = pool_.similarity() ? -1e9f : 1e9f;
        const bool everything = below(2);
        if (!everything) {
            radius = pool_.distance[below(pool_.distance.size())];
        }
        const size_t nq = 1 + below(pool_.nquery);
        faiss::RangeSearchResult result(nq);
        index_->range_search(nq, pool_.q.data(), radius, &result);
        index_->parallel_mode = 0;
        for (size_t i = 0; i < nq; i++) {
            const size_t begin = result.lims[i], n = result.lims[i + 1] - begin;
            check_range(
                    i,
                    radius,
                    n,
                    result.labels + begin,
                    result.distances + begin);
        }
    }

    void check_range(
            size_t query,
            float radius,
            size_t n,
            const idx_t* labels,
            const float* distances) {
        std::map<idx_t, size_t> times;
        for (size_t j = 0; j < n; j++) {
            auto known = model_.vectors.find(labels[j]);
            expect(known != model_.vectors.end(), "an unknown id in range");
            times[labels[j]]++;
            expect(times[labels[j]] <= (by_id() ? 1 : known->second.size()),
                   "an id comes too often in range");
            expect(!pool_.better(radius, distances[j]), "outside the radius");
        }
        for (auto& entry : model_.vectors) {
            size_t within = 0;
            for (size_t v : entry.second) {
                within += pool_.better(pool_.worst(query, v), radius);
            }
            if (by_id()) {
                within = within == entry.second.size();
            }
            expect(times[entry.first] >= within, "an id is missing in range");
        }
    }

    void search_and_reconstruct() {
        log_ << "search_and_reconstruct ";
        const idx_t k = 1 + below(6);
        std::vector<float> dist(pool_.nquery * k), y(pool_.nquery * k * d);
        std::vector<idx_t> labels(pool_.nquery * k);
        index_->search_and_reconstruct(
                pool_.nquery,
                pool_.q.data(),
                k,
                dist.data(),
                labels.data(),
                y.data());
        for (size_t i = 0; i < pool_.nquery; i++) {
            check_results(
                    pool_,
                    model_,
                    nullptr,
                    by_id(),
                    i,
                    k,
                    &labels[i * k],
                    &dist[i * k]);
        }
        for (size_t at = 0; at < labels.size(); at++) {
            if (labels[at] >= 0) {
                const auto& vectors = model_.vectors.at(labels[at]);
                expect(std::any_of(
                               vectors.begin(),
                               vectors.end(),
                               [&](size_t v) {
                                   return pool_.is_decoded(v, &y[at * d]);
                               }),
                       "found, but reconstructed as something else");
            }
        }
    }
};

} // namespace test
